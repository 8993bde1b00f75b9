"""Check that real encoders on real BEIR data give the figures that they are known to give.

Command:  FUSION_DATA=... python experiments/checks/real_data.py [--output FOLDER]
Hardware: 2 CPU cores, 20 minutes with an empty store, one minute with a filled one.
Expected: every line says ok, but for one known miss; exit code 1 if a line says FAILED.

The figures of all-MiniLM-L6-v2 are the published ones (model card, mteb); those of the concat were
measured before with other code. Nothing is fitted on the test data: the runs hold Wikipedia text.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from fusion import evaluate, train

TOLERANCE = 0.002
SETTINGS = {  # name -> flags, then what has to come out, by data set and method
    "weights 1,1": (
        ["--weights", "1,1"],
        {
            ("scifact", "encoder:minilm"): (0.6451, 0.0005),
            ("nfcorpus", "encoder:minilm"): (0.3159, TOLERANCE),
            ("arguana", "encoder:minilm"): (0.5017, TOLERANCE),
            ("scifact", "concat"): (0.6591, TOLERANCE),
            ("nfcorpus", "concat"): (0.3092, TOLERANCE),
            ("arguana", "concat"): (0.5137, TOLERANCE),
        },
    ),
    "weights 1,0.5": (
        ["--weights", "1,0.5"],
        {
            ("scifact", "concat"): (0.6712, TOLERANCE),
            ("nfcorpus", "concat"): (0.3175, TOLERANCE),
            ("arguana", "concat"): (0.5181, TOLERANCE),
        },
    ),
    "raw blocks": (
        # 0.5814 would mean that an encoder's own Normalize was left in.
        ["--normalize", "none"],
        {("scifact", "concat"): (0.6699, TOLERANCE)},
    ),
}

# What was asked and is not met, with what we get instead: such a line says "missed", and fails only
# if our own figure moves. 0.5137 was measured with bfloat16 encoders (we get 0.5126 with those, see
# encoder_dtype.py); pytrec_eval, beir and mteb agree with our 0.5117 in float32 (check_metrics.py).
KNOWN_MISSES = {("weights 1,1", "arguana", "concat"): 0.5117}
STEADY = 0.0005


def measure(flags: list[str], folder: Path) -> dict[tuple[str, str], float]:
    """Train a run (quickly: only blocks are measured) and evaluate encoders and concat."""
    run, results = folder / "run", folder / "results"
    quick = ["--texts", "wikipedia-100k", "--max-texts", "500", "--epochs", "1"]
    encoders = ["--encoders", "minilm,wordllama"]
    train_code = train.main(
        [*encoders, *quick, *flags, "--batch-size", "128", "--output", str(run)]
    )
    wanted = ["--data", "nfcorpus,scifact,arguana", "--methods", "encoders,concat"]
    code = evaluate.main([str(run), *wanted, "--output", str(results)])
    if train_code or code:
        sys.exit(f"the run failed with exit codes {train_code} and {code}")
    rows = json.loads((results / "results.json").read_text(encoding="utf-8"))["rows"]
    return {(row["data"], row["method"]): row["ndcg_at_10"] for row in rows}


def main() -> int:
    """Print asked and measured, line by line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="also write what was measured as JSON")
    output = parser.parse_args().output
    lines = []
    for name, (flags, expected) in SETTINGS.items():
        with tempfile.TemporaryDirectory() as folder:
            found = measure(flags, Path(folder))
        for (data, method), (asked, tolerance) in expected.items():
            score = found[data, method]
            known = KNOWN_MISSES.get((name, data, method))
            ok = abs(score - asked) <= tolerance
            lines.append(
                {"setting": name, "data": data, "method": method, "asked": asked}
                | {"tolerance": tolerance, "measured": score, "ok": ok}
                | {"known_miss": not ok and known is not None and abs(score - known) <= STEADY}
            )
    for line in lines:
        verdict = "ok    " if line["ok"] else "missed" if line["known_miss"] else "FAILED"
        print(
            f"{verdict} {line['setting']:14} {line['data']:9} {line['method']:15} asked "
            f"{line['asked']:.4f} ± {line['tolerance']:.4f}, measured {line['measured']:.4f}"
        )
    if output is not None:
        output.write_text(json.dumps(lines, indent=2) + "\n", encoding="utf-8")
    missed = sum(line["known_miss"] for line in lines)
    failed = sum(not line["ok"] for line in lines) - missed
    print(f"{missed} known misses")
    print(f"{len(lines) - failed - missed} passed, {failed} failed")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
