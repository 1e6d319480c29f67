from geo4d.evaluation.benchmarks import BENCHMARKS
from geo4d.evaluation.layouts import benchmark_names
from geo4d.evaluation.published import PUBLISHED


def test_published_rows_are_complete():
    assert {name for name in PUBLISHED if name.startswith("ablation/")} == {
        f"ablation/{kind}" for kind in ("steps", "modalities", "stride", "vae")
    }
    assert sum(name.startswith("geometrycrafter/") for name in PUBLISHED) == 7
    for name, rows in PUBLISHED.items():
        for row in rows:
            assert row.source, name
            for metric, value in row.values.items():
                assert 0 < value < (4 if metric in ("rpe_rot_deg", "seconds_per_frame") else 1), (
                    name,
                    row.method,
                )
    for benchmark in BENCHMARKS.values():
        assert benchmark.published is None or benchmark.published in PUBLISHED
    geo4d = {row.method: row.values for row in PUBLISHED["geo4d/sintel-pose"]}["Geo4D"]
    assert geo4d == {"ate": 0.185, "rpe_trans": 0.063, "rpe_rot_deg": 0.547}
    assert len(set(benchmark_names())) == len(benchmark_names())
