import json
import os
import resource
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

import mobtk
from mobtk.cli import COMMANDS, cli, main
from mobtk.errors import MobtkError

MOBTK = [sys.executable, "-m", "mobtk"]


def _run(*args, **options):
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([*MOBTK, *map(str, args)], capture_output=True, text=True, env=env, check=False, **options)


@pytest.mark.parametrize("args", [["--help"], ["parts"], ["--version"], ["plugins", "list"]])
def test_listing_imports_nothing_heavy(args):
    code = (
        "import sys; from mobtk.cli import cli\n"
        f"cli.main({args!r}, standalone_mode=False)\n"
        "print([m for m in ('torch', 'numpy', 'geopandas', 'pandas', 'h3', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_takes_little_processor_time():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert _run("--help").returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_has_help(command):
    done = _run(command, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_the_whole_loop_by_commands_alone(tmp_path):
    steps = [
        ["data", "city", "-o", "city", "--weeks", "60", "--json"],
        ["data", "info", "city", "--json"],
        ["build", "tiny", "--data", "city", "--backbone", "mamba", "--set", "backbone.depth=1", "-o", "run", "--json"],
        ["train", "run", "--json"],
        ["generate", "run", "-n", "20", "--json"],
        ["evaluate", "run", "--repeats", "1", "--json"],
    ]
    results = []
    for step in steps:
        done = _run(*step, cwd=tmp_path)
        assert done.returncode == 0, (step, done.stderr)
        results.append(json.loads(done.stdout))
    assert results[0]["split"]["train"] == 32
    assert results[2]["passes"] == 3
    assert 'name = "mobtk.mamba"' in (tmp_path / "run" / "recipe.toml").read_text()
    assert set(results[-1]["scores"]) == {"floor", "model", "Markov", "time of day", "EPR"}
    text = _run("evaluate", "run", "--repeats", "1", cwd=tmp_path).stdout
    assert "DailyLoc" in text


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["build", "--backbone", "mambo", "-o", "r"], "no backbone is called 'mambo'; did you mean 'mamba'"),
        (
            ["build", "--mapper", "places", "-o", "r"],
            "tokenizer 'rvq' wants a mapper with levels; 'places' has one only. Try: grid, h3",
        ),
        (["build", "--set", "tokenizer.colour=3", "-o", "r"], "tokenizer 'rvq' has no option 'colour'"),
        (["build", "--set", "width", "-o", "r"], "not of the form key=value"),
        (["build", "--set", "width=-1", "-o", "r"], "setting 'width'"),
        (["build", "nothing.toml", "-o", "r"], "recipe nothing.toml is not a file"),
        (["build", "--data", "nowhere", "-o", "r"], "nowhere is not a dataset"),
        (["build", "--experts", "3", "-o", "r"], "Try: input, entity"),
        (["train", "nowhere"], "nowhere is not a run"),
        (["generate", "nowhere", "-n", "3"], "nowhere is not a run"),
        (["evaluate", "nowhere"], "nowhere is not a run"),
        (["data", "info", "nowhere"], "nowhere is not a dataset"),
        (["data", "prepare", "nowhere.csv", "-o", "d"], "nowhere.csv is not a file"),
        (["parts", "colour"], "no kind of part called 'colour'"),
        (["plugins", "check", "acme"], "no plugin 'acme' is loaded"),
        (["build", "--set", "backbone.heads=0", "-o", "r"], "cannot have 0 heads"),
        (["build", "--set", "backbone.depth=abc", "-o", "r"], "backbone 'transformer' cannot have depth='abc'"),
        (["build", "--set", "tokenizer.turns=0", "-o", "r"], "turns are at least 1"),
        (["build", "--set", "tokenizer.lengths=5", "-o", "r"], "tokenizer 'rvq' cannot have lengths=5"),
        (["build", "--set", "tokenizer.codes=0", "-o", "r"], "codes and turns are at least 1"),
        (["build", "--router", "input", "--experts", "2", "--set", "router.top_k=x", "-o", "r"], "cannot have top_k='x'"),
        (["build", "--router", "input", "--experts", "2", "--traits", "", "-o", "r"], "Name some with --traits"),
        (["build", "--set", "mapper.siez=500", "-o", "r"], "mapper 'grid' has no option 'siez'"),
        (["build", "--set", "width.x=3", "-o", "r"], "'width' is a value and has no settings of its own"),
        (["build", "--set", "training.seed=-1", "-o", "r"], "setting 'training.seed'"),
        (["build", "--weeks", "0", "-o", "r"], "a city needs a week at least"),
        (["data", "city", "-o", "c", "--set", "crs=EPSG:99999"], "mapper 'grid' has no option 'crs'"),
        (["data", "city", "-o", "c", "--set", "size=0"], "a grid needs a size above 0 m"),
        (["data", "city", "-o", "c", "--seed", "-1"], "a seed of 0 or more"),
        (["--plugin", "json.py", "parts"], "no such file"),
    ],
)
def test_a_users_mistake_is_one_sentence_and_exit_code_2(tmp_path, args, complaint):
    done = _run(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stderr.strip().count("\n") == 0
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [], "nothing half-written"


def _mobtk(monkeypatch, capsys, *args):
    """The same in this process, where only the message matters: exit code and what stands on standard error."""
    monkeypatch.setattr(sys, "argv", ["mobtk", *map(str, args)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["train", "{run}"], "--resume, or begin anew with --restart"),
        (["train", "{run}", "--restart", "--device", "tpu"], "device 'tpu' is not on this machine"),
        (["generate", "{run}", "-n", "2", "-o", "{tmp}/g.parquet", "--seed", "-1"], "a seed at least 0"),
        (["generate", "{run}", "-n", "2", "-o", "{tmp}/g.parquet", "--device", "cuda:99"], "is not on this machine"),
        (["evaluate", "{run}", "{tmp}/none.parquet"], "is no generated population"),
        (["evaluate", "{run}", "--seed", "-1"], "a seed is 0 or more"),
        (["evaluate", "{run}", "-n", "0"], "n and repeats are at least 1"),
        (["build", "--data", "{data}", "--set", "mapper.size=500", "-o", "{tmp}/r"], "leave the mapper to the dataset"),
        (["build", "--data", "{tmp}/own/data", "-o", "{tmp}/own", "--force"], "which is needed, lies in it"),
        (["data", "prepare", "{tmp}/notes/a.csv", "-o", "{tmp}/notes", "--force"], "it is no dataset and no run"),
        (["data", "prepare", "{tmp}/own/a.csv", "-o", "{tmp}/own", "--force"], "which is needed, lies in it"),
    ],
)
def test_mistakes_with_things_that_exist(city, trained, tmp_path, monkeypatch, capsys, args, complaint):
    shutil.copytree(city.path, tmp_path / "own" / "data")
    shutil.copy(trained.path / "recipe.toml", tmp_path / "own")
    (tmp_path / "notes").mkdir()
    for folder in ("own", "notes"):
        (tmp_path / folder / "a.csv").write_text("user,time,lat,lon\n")
    before = sorted(tmp_path.rglob("*"))
    places = {"run": trained.path, "data": city.path, "tmp": tmp_path}
    code, said = _mobtk(monkeypatch, capsys, *(a.format(**places) for a in args))
    assert (code, said.strip().count("\n")) == (2, 0), said
    assert complaint in said
    assert sorted(tmp_path.rglob("*")) == before, "nothing written, nothing lost"


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("data.json", b"{}", "is damaged: data.json"),
        ("data.json", b"\x00", "is damaged: data.json"),
        ("recipe.toml", b"\xff\xfe", "is not text in UTF-8"),
        ("recipe.toml", b"width = [", "is not valid TOML"),
        ("weights.safetensors", b"not", "is not a safetensors file"),
    ],
)
def test_a_damaged_run_is_told(trained, tmp_path, monkeypatch, capsys, file, content, complaint):
    shutil.copytree(trained.path, tmp_path / "run")
    (tmp_path / "run" / file).write_bytes(content)
    code, said = _mobtk(monkeypatch, capsys, "generate", tmp_path / "run", "-n", 2, "-o", tmp_path / "g.parquet")
    assert (code, said.strip().count("\n")) == (2, 0), said
    assert complaint in said
    assert not (tmp_path / "g.parquet").exists()


def test_a_dataset_prepared_again_is_noticed(tmp_path, monkeypatch, capsys):
    mobtk.prepare_city(tmp_path / "city", weeks=40)
    mobtk.build("tiny", tmp_path / "run", data=tmp_path / "city")
    mobtk.prepare_city(tmp_path / "city", weeks=40, seed=1, replace=True)
    code, said = _mobtk(monkeypatch, capsys, "train", tmp_path / "run")
    assert code == 2
    assert "was prepared again since run" in said


def test_a_disk_that_is_full_loses_nothing(trained, tmp_path):
    """No file may grow beyond 16 KiB: what fits is whole, what does not is told, and the old weights stay."""
    shutil.copytree(trained.path, tmp_path / "run")
    weights = (tmp_path / "run" / "weights.safetensors").read_bytes()

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, 16_384))

    done = _run("train", tmp_path / "run", "--restart", preexec_fn=limit)
    assert done.returncode == 2, done.stderr
    assert "cannot write" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() == weights
    assert not list((tmp_path / "run").glob(".*")), "no draft is left"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission_is_told(tmp_path):
    tmp_path.chmod(0o500)
    done = _run("data", "city", "-o", tmp_path / "c", "--weeks", "8")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "cannot write" in done.stderr


def test_points_from_end_to_end(tmp_path):
    """Walks are made, a completer learns them, foretells their next points and fills their gaps; another begins with it."""
    run, tuned = tmp_path / "run", tmp_path / "tuned"

    def _run(*words):
        return CliRunner().invoke(cli, [str(word) for word in words])

    small = ["--weeks", 60, "--set", "width=16", "--set", "training.completer.epochs=1", "--set", "complete.window=32"]
    assert "step by step" in _run("build", "completer", "-o", run, *small).output
    assert f"mobtk evaluate {run}" in _run("train", run).output
    scored = _run("evaluate", run, "--mask", "last", "--mask", "block", "--set", "last.points=3").output
    assert "model step by step" in scored and "interpolation" in scored and "travel-time" not in scored
    told = _run("predict", run, run / "data", "-n", 3, "--every", "10s", "--split", "test", "-o", tmp_path / "next.csv")
    assert "metres_80" in told.output
    assert (tmp_path / "next.csv").read_text().count("\n") == 1 + 3 * 12
    filled = _run("complete", run, run / "data", "--every", "20s", "--samples", 2, "-o", tmp_path / "f.parquet")
    assert "points more" in filled.output
    assert (tmp_path / "f.parquet").is_file()
    _run("build", "completer", "-o", tuned, "--data", run / "data", *small)
    assert _run("train", tuned, "--from", run, "--freeze", "backbone").exit_code == 0
    for words, said in (
        (["predict", run, run / "data", "-n", 99], "foretells 1 to 16, not 99"),
        (["predict", run, run / "data", "--every", "soon"], "is no duration"),
        (["complete", run, run / "data", "--every", "20s", "-o", "points.txt"], "none of .csv, .parquet"),
        (["evaluate", run, "--mask", "hat"], "no mask is called 'hat'"),
        (["evaluate", run, "--set", "last.hats=3"], "has no option 'hats'"),
        (["evaluate", run, "--mask", "block", "--set", "last.points=3"], "for mask 'last', which is not among block"),
        (["evaluate", run, "--task", "next-place"], "generates no people, so leave out --task next-place"),
        (["experiment", "run", "trajfm/deltas", "--data", run, "--data", run], "asks of one set of data, not of 2"),
        (["forecast", run], "this wants one that forecasts a field"),
        (["train", run, "--resume", "--freeze", "backbone"], "goes on as it was begun"),
    ):
        done = _run(*words)
        assert isinstance(done.exception, MobtkError | SystemExit), words
        assert said in f"{done.exception} {done.output}"


def test_doctor_names_the_scan_and_the_plugins():
    found = json.loads(_run("doctor", "--json").stdout)
    assert found["selective scan"] in ("mamba_ssm", "fused", "torch")
    assert found["problems"] == []
    assert "mobtk" in found["plugins"]


def test_doctor_and_a_broken_plugin(tmp_path):
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    done = _run("--plugin", tmp_path / "broken.py", "doctor")
    assert done.returncode in (1, 2)
    assert "nothing_of_this_name" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("what", ["scan", "forecasting", "points"])
def test_bench_measures(what):
    found = json.loads(_run("bench", what, "--weeks", 2, "--json").stdout)
    assert found
    assert all(value > 0 for value in found.values())
