"""Paths. Committed results lie below `benchmarks/`, all working files below `.bench/`."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "models"
PEERS = ROOT / "benchmarks" / "peers"
RESULTS = ROOT / "benchmarks" / "results"
FIXTURES = ROOT / "tests" / "fixtures"
UPLOAD = FIXTURES / "mnist" / "7.png"
DRAWING = FIXTURES / "drawings" / "3-shadow.jpg"
DOCUMENTS = (*(ROOT / "docs" / f"{name}.md" for name in ("deploy", "performance", "reliability")), ROOT / "README.md")

WORK = ROOT / ".bench"
MODELS = WORK / "models"
LOGS = WORK / "logs"
SCRATCH = WORK / "scratch"
