"""Where things lie: what is kept is below `benchmarks/`, everything else below `.bench/`."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
WORK = ROOT / ".bench"
MODELS = WORK / "models"
ENVIRONMENTS = WORK / "env"
LOGS = WORK / "logs"
RECORDS = WORK / "records"
SCRATCH = WORK / "scratch"

APP = ROOT / "app"
SHIPPED = ROOT / "models"
PEERS = ROOT / "benchmarks" / "peers"
RESULTS = ROOT / "benchmarks" / "results"
LOAD_SCRIPT = ROOT / "benchmarks" / "load.lua"
UPLOAD = ROOT / "tests" / "fixtures" / "mnist" / "7.png"
REPORTS = (ROOT / "docs" / "performance.md", ROOT / "docs" / "reliability.md", ROOT / "README.md")
