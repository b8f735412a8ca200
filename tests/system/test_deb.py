"""The Debian package as a file: what is in it, whose it is, and that it runs wherever it is unpacked."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT = 35_000_000  # bytes of the package
PRIVATE_FILE = re.compile(r"\.(db|sock|key|log)$|id_ed25519|authorized_keys")
# As bash-completion finds it when the word hivectl is completed for the first time.
COMPLETE = """
source /usr/share/bash-completion/bash_completion
_completion_loader hivectl
COMP_WORDS=(hivectl nodes sh)
COMP_CWORD=2
_hivectl_completion hivectl sh nodes
echo "${COMPREPLY[@]}"
"""

pytestmark = pytest.mark.requires("debhelper")


def run(*command: str | Path, **environment: str) -> str:
    """The standard output of a command that must succeed."""
    environ = {**os.environ, **environment}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of this checkout."""
    (built,) = re.findall(r"dist/\S+\.deb", run("scripts/deb"))
    return Path(shutil.copy(ROOT / built, tmp_path_factory.mktemp("deb")))


@pytest.fixture(scope="module")
def control(deb: Path) -> Path:
    """The directory of control files."""
    run("dpkg-deb", "--control", deb, deb.parent / "control")
    return deb.parent / "control"


@pytest.fixture(scope="module")
def files(deb: Path) -> Path:
    """The files, unpacked by whoever runs the tests."""
    run("dpkg-deb", "--extract", deb, deb.parent / "files")
    return deb.parent / "files"


@pytest.fixture(scope="module")
def members(deb: Path) -> list[tarfile.TarInfo]:
    """The files as dpkg makes them, with owner and mode."""
    tar = deb.parent / "files.tar"
    with tar.open("wb") as file:
        subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], stdout=file, check=True)
    with tarfile.open(tar) as archive:
        return archive.getmembers()


@pytest.fixture(scope="module")
def release(files: Path) -> Path:
    """The release in it."""
    (found,) = (files / "usr/lib/hive/releases").iterdir()
    return found


@pytest.fixture(scope="module")
def moved(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release at a place that nobody foresaw."""
    return Path(shutil.copytree(release, tmp_path_factory.mktemp("else where") / "hive"))


def test_it_is_small(deb: Path) -> None:
    size = deb.stat().st_size
    print(f"{deb.name}: {size / 1e6:.1f} MB, at most {LIMIT / 1e6:.0f}")
    assert size <= LIMIT


@pytest.mark.requires("lintian")
def test_lintian_finds_nothing(deb: Path) -> None:
    checked = ["lintian", "--fail-on", "error,warning", "--display-info", "--pedantic", str(deb)]
    done = subprocess.run(checked, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0)


def test_it_is_for_this_python_and_starts_nothing(deb: Path, control: Path) -> None:
    minor = int(run("/usr/bin/python3", "-c", "import sys; print(sys.version_info.minor)"))
    depends = run("dpkg-deb", "--field", deb, "Depends")
    for needed in (f"python3 (>= 3.{minor})", f"python3 (<< 3.{minor + 1})", "adduser", "libgmp10", "libc6"):
        assert needed in depends
    scripts = "".join((control / name).read_text() for name in ("preinst", "postinst", "prerm"))
    assert "try-restart" in scripts
    # A line that begins with "hive:" is what the user is told to type.
    assert not re.search(
        r"^(?!hive:| *echo ).*(systemctl|-invoke) (.* )?(start|restart|enable) ", scripts, re.MULTILINE
    )


def test_the_configuration_is_a_conffile_and_says_nothing(control: Path, files: Path) -> None:
    assert (control / "conffiles").read_text() == "/etc/hive/hived.toml\n"
    toml = (files / "etc/hive/hived.toml").read_text()
    assert toml == (ROOT / "etc/hive/hived.toml").read_text()
    assert [line for line in toml.splitlines() if line and not line.startswith("#")] == []


def test_it_holds_no_identity_and_no_state(members: list[tarfile.TarInfo], release: Path) -> None:
    names = [member.name for member in members if not member.isdir()]
    own = [name for name in names if "/releases/" not in name]
    assert not [name for name in own if not name.startswith(("./usr/", "./lib/systemd/", "./etc/hive/"))]
    private = [name for name in names if PRIVATE_FILE.search(name)]
    assert private == []
    # What a checkout has that git does not: the compiled data plane, leftovers of other Pythons.
    tracked = run("git", "-c", f"safe.directory={ROOT}", "ls-files", "hived", "hivectl").splitlines()
    packages = [path for name in ("hived", "hivectl") for path in (release / "lib" / name).rglob("*")]
    packed = [str(path.relative_to(release / "lib")) for path in packages if path.is_file()]
    assert sorted(name for name in packed if "__pycache__" not in name) == sorted(tracked)


def test_all_is_roots_and_nobody_elses_to_write(members: list[tarfile.TarInfo]) -> None:
    assert {(member.uname, member.gname) for member in members} == {("root", "root")}
    assert {member.mode for member in members if member.isdir()} == {0o755}
    modes = {
        Path(member.name).name: member.mode for member in members if member.isfile() and member.mode != 0o644
    }
    assert modes == {"hived": 0o755, "hivectl": 0o755}


def test_every_file_has_its_checksum(control: Path, files: Path) -> None:
    sums = dict(line.split("  ")[::-1] for line in (control / "md5sums").read_text().splitlines())
    kept = [path for path in files.rglob("*") if path.is_file() and not path.is_symlink()]
    assert {str(path.relative_to(files)) for path in kept} - set(sums) == {"etc/hive/hived.toml"}
    for name, expected in sums.items():
        assert hashlib.md5((files / name).read_bytes()).hexdigest() == expected, name


def test_no_library_is_looked_for_where_it_was_built(release: Path) -> None:
    objects = [str(path) for path in release.rglob("*.so*")]
    assert len(objects) > 50
    assert "PATH)" not in run("readelf", "--wide", "--dynamic", *objects)


def test_no_file_names_the_checkout(files: Path) -> None:
    needle = str(ROOT / "hived").encode()
    assert [path for path in files.rglob("*") if path.is_file() and needle in path.read_bytes()] == []


def test_what_only_builds_and_tests_need_is_left_out(release: Path) -> None:
    lib = release / "lib"
    names = [str(path.relative_to(lib)) for path in lib.rglob("*") if path.is_file()]
    unwanted = re.compile(
        r"(^|/)(pip|setuptools|wheel|_?tests|SelfTest)/|\.(h|c|pyx|pxd|pyi|a|o)$|/RECORD$|^bin/"
    )
    assert [name for name in names if unwanted.search(name)] == []
    sources = [name for name in names if name.endswith(".py")]
    compiled = {name for name in names if name.endswith(".pyc")}
    assert not [name for name in sources if not any(pyc in compiled for pyc in _compiled(name))]


def _compiled(source: str) -> list[str]:
    path = Path(source)
    return [f"{path.parent / '__pycache__' / path.stem}.cpython-3{minor}.pyc" for minor in range(11, 20)]


def test_it_runs_at_another_place(moved: Path, tmp_path: Path) -> None:
    (version,) = re.findall(r'__version__ = "(.*)"', (ROOT / "hived/__init__.py").read_text())
    link = tmp_path / "hived"
    link.symlink_to(moved / "bin/hived")
    # What a caller has around must not get in.
    (tmp_path / "click.py").write_text("raise SystemExit('a foreign click')\n")
    surroundings = {"PYTHONPATH": str(tmp_path), "PYTHONHOME": "/nonexistent"}
    assert run(link, "--version", **surroundings) == f"hived {version}\n"
    assert run(moved / "bin/hivectl", "--version", **surroundings) == f"hivectl {version}\n"
    # This executes itself again, with the password out of sight.
    checked = run(link, "check", "--data-dir", tmp_path, "--network", "lab:secret", **surroundings)
    assert f"data_dir = {tmp_path}\n" in checked
    assert "networks = lab\n" in checked


def test_tracebacks_name_the_files_where_they_are_installed(release: Path) -> None:
    code = "import marshal, sys; print(marshal.loads(open(sys.argv[1], 'rb').read()[16:]).co_filename)"
    (compiled,) = (release / "lib/hived/__pycache__").glob("cli.*.pyc")
    named = run("/usr/bin/python3", "-c", code, compiled)
    assert named == f"/usr/lib/hive/releases/{release.name}/lib/hived/cli.py\n"


def test_manual_and_units_are_where_they_are_looked_for(files: Path, release: Path) -> None:
    for name in (
        *("man8/hived.8.gz", "man1/hivectl.1.gz", "man5/hived.toml.5.gz"),
        *("../zsh/vendor-completions/_hivectl", "../bash-completion/completions/hivectl"),
    ):
        assert (files / "usr/share/man" / name).resolve().is_file(), name
    units = ROOT / "packaging/systemd"
    for name in ("hived.service", "hived.socket", "hived-web.socket"):
        assert (files / "lib/systemd/system" / name).read_text() == (units / name).read_text()
    user = "user/hived.service"
    assert (files / "usr/lib/systemd" / user).read_text() == (units / user).read_text()
    for name in ("hived", "hivectl"):
        assert (files / "usr/bin" / name).readlink() == Path(
            f"../lib/hive/releases/{release.name}/bin/{name}"
        )


@pytest.mark.requires("bash-completion")
def test_bash_completes(files: Path) -> None:
    surroundings = {
        "XDG_DATA_DIRS": str(files / "usr/share"),
        "PATH": f"{files}/usr/bin:{os.environ['PATH']}",
    }
    assert run("bash", "--norc", "-c", COMPLETE, **surroundings) == "show\n"


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        (["install"], False),
        (["upgrade", "0.0.9", "0.1.0"], False),
        (["upgrade", "99", "0.1.0"], True),
        (["install", "99", "0.1.0"], True),  # removed, and its state is still there
        (["abort-upgrade", "99"], False),
    ],
)
def test_a_downgrade_is_refused(control: Path, arguments: list[str], refused: bool) -> None:
    done = subprocess.run([control / "preinst", *arguments], capture_output=True, text=True, check=False)
    if refused:
        assert done.returncode == 1
        assert re.fullmatch(
            r"hive: downgrading from 99 to \S+ is refused: .*hivectl restore FILE.*\n", done.stderr
        )
    else:
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.full
def test_the_same_commit_gives_the_same_bytes(deb: Path) -> None:
    digest = hashlib.sha256(deb.read_bytes()).hexdigest()
    again = ROOT / "dist" / deb.name
    again.unlink()
    run("scripts/deb")
    assert hashlib.sha256(again.read_bytes()).hexdigest() == digest


@pytest.mark.full
def test_settings_for_other_builds_do_not_get_in(tmp_path: Path) -> None:
    """Wheels are made anew, although the caller's pip and compiler are told otherwise."""
    elsewhere = tmp_path / "elsewhere"
    foreign = {"PIP_TARGET": str(elsewhere), "LDFLAGS": "-Wl,-rpath,/somewhere", "PYTHONHOME": str(elsewhere)}
    run("scripts/release", tmp_path / "release", HIVE_CACHE=str(tmp_path / "cache"), **foreign)
    assert run(tmp_path / "release/bin/hivectl", "--version").startswith("hivectl ")
    assert not elsewhere.exists()


def test_a_directory_that_is_no_release_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("dear to me")
    done = subprocess.run([ROOT / "scripts/release", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        f"release: {tmp_path} is there and is no release. Name another directory, or remove it\n"
    )
    assert (tmp_path / "mine").read_text() == "dear to me"
