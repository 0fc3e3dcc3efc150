from __future__ import annotations

import json
import subprocess
import sys


def test_the_demonstration_shows_and_measures(packages, tmp_path):
    """`regard demo` answers, draws, measures, stops its server cleanly and ends well."""
    command = [sys.executable, "-m", "regard.cli", "demo", "--models", str(packages), "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text("utf-8")
    assert str(tmp_path / "report.html") in done.stdout.replace("\n", "")
    summary = json.loads((tmp_path / "summary.json").read_text("utf-8"))
    assert summary["row_sum_error"] < 1e-4
    assert (summary["server_exit_code"], summary["server_has_torch"]) in ((0, False), (0, None))
    translation, captioning, classification = (
        summary["tasks"][name] for name in ("translation", "captioning", "classification")
    )
    assert sum(example["equals_a_reference"] for example in translation["examples"]) >= 8
    assert translation["batch_sizes"]["step"]["mean_rows"] > 1
    assert all(example["equals_a_reference"] for example in captioning["examples"])
    assert captioning["attention_shapes"][0]["decoder.cross.0"][2] == 65
    assert len(classification["attention_shapes"]) == 5
    shown = " ".join(done.stdout.split())
    for example in [*translation["examples"], *captioning["examples"], *classification["examples"]]:
        assert example["output"] in shown
        assert json.dumps(example["output"])[1:-1] in page
