"""For `gunicorn --config python:app.server.gunicorn_conf`: the same start as `python -m app`."""

from app.server.environment import initialize_process, prepare_service

initialize_process()
settings, listener, processes = prepare_service(supervised=True)

from app.server.supervisor import configuration  # noqa: E402 -- after `prepare_service`

globals().update(configuration(settings, processes, listener))
wsgi_app = "app.server.process:Server"  # imported before the fork
