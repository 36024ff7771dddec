"""For `gunicorn --config python:app.server.gunicorn_conf`: the same settings and processes as `python -m app`."""

from app import logs
from app.server.environment import prepare
from app.settings import SETTINGS_FILE, Settings

settings = Settings(_env_file=SETTINGS_FILE)
logs.configure(settings.log_level)
processes = prepare(settings)

from app.server.supervisor import configuration  # noqa: E402 -- after `prepare`

globals().update(configuration(settings, processes))
wsgi_app = "app.server.process:Server"  # what the processes share
