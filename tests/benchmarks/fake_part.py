"""A part of a GPU run that measures nothing: `python -m tests.benchmarks.fake_part WAY` reads its job as input."""

import json
import os
import signal
import sys
import time
from pathlib import Path

job = json.load(sys.stdin)
document = {"part": job["part"], "status": "running", "error": None, "results": [{"row": 1}]}
if sys.argv[1] != "never":
    Path(job["path"]).write_text(json.dumps(document))
match sys.argv[1]:
    case "hang":
        time.sleep(600)
    case "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    case "never":
        sys.exit(3)
    case "fail":
        document |= {"status": "failed", "error": "ValueError: no"}
        Path(job["path"]).write_text(json.dumps(document))
        sys.exit(1)
    case "finish":
        Path(job["path"]).write_text(json.dumps({**document, "status": "finished"}))
