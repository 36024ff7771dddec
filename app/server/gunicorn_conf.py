"""For `gunicorn --config python:app.server.gunicorn_conf`: the same start as `python -m app`."""

from app.server.environment import begin, start

begin()
settings, listener, processes = start(supervised=True)

from app.server.supervisor import configuration  # noqa: E402 -- after `start`

globals().update(configuration(settings, processes, listener))
wsgi_app = "app.server.process:Server"  # imported before the fork
