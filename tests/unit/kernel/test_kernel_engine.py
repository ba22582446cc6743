"""What the engine says of the machine it runs on, with and without rights."""

import os
import resource
import sys
from pathlib import Path

import pytest
from bpf_assembly import EXIT, R0, Code, add_to, movi
from test_kernel_uprobe import plan, site

from kprobes.engines.kernel import features, kretprobe_events, privilege, trial
from kprobes.engines.kernel.engine import KernelEngine
from kprobes.engines.kernel.files import KernelFiles
from kprobes.errors import KprobesError, PrivilegeError, UnsupportedError
from kprobes.model.plan import Site, Way


@pytest.fixture
def engine():
    with KernelEngine() as made:
        yield made


def test_the_facts_lead_to_real_files(engine):
    facts = engine.facts()
    assert Path(facts.kallsyms()).exists()
    assert Path(facts.btf()).read_bytes()[:2] == b"\x9f\xeb"
    assert facts.btf("no_such_module") is None
    assert facts.btf("../kernel/notes") is None
    assert "name: sched_switch" in facts.text("format:sched/sched_switch")
    assert facts.text("format:../../etc/passwd") is None
    assert facts.text("nothing") is None
    assert all("/" not in name for name in facts.modules())


def test_the_features_are_probed_once_and_kept(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    probed = features.probe_features()
    assert probed.key == features.parse_build_id(Path("/sys/kernel/notes").read_bytes())
    assert probed.uprobe
    assert probed.ring_buffer
    asked = []
    monkeypatch.setattr(trial, "TRIALS", {name: lambda name=name: asked.append(name) for name in trial.TRIALS})
    again = features.probe_features()
    assert all(getattr(probed, name) is None for name in asked)
    assert again == probed


def test_a_kernel_without_kprobes_refuses_them_with_the_way_out(engine):
    if engine.facts().features.kprobe:
        pytest.skip("this kernel has kprobes")
    code = add_to(Code(), "stats").add(movi(R0, 0), EXIT).program(Way.KPROBE)
    with pytest.raises(UnsupportedError, match="this kernel has no kprobes") as caught:
        engine.attach(plan([Site(0, "vfs_read", symbol="vfs_read")], [code]))
    assert "--vm" in caught.value.hint
    assert "CONFIG_KPROBES" in engine.facts().features.refusal


def test_the_engine_is_alive_until_closed():
    with KernelEngine() as engine:
        assert engine.is_alive
    assert not engine.is_alive
    engine.close()


def test_an_own_mount_ends_with_its_files():
    files = KernelFiles()
    root = files.root("tracefs")
    assert os.access(f"{root}/events", os.F_OK)
    files.close()
    files.close()
    assert root == "/sys/kernel/tracing" or not os.access(f"{root}/events", os.F_OK)


def without_rights(work):
    """Run *work* in a child that is no longer root; return the text that it returned."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setresuid(65534, 65534, 65534)
            os.write(writing, work().encode())
        except BaseException as error:  # noqa: BLE001  (the parent shows it)
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with open(reading, "rb") as pipe:  # noqa: PTH123  (a descriptor)
        return pipe.read().decode()


def test_without_rights_the_missing_one_is_named(engine, program, offsets):
    assert privilege.__name__ in sys.modules  # the child can't read our files to import what it needs
    assert resource.__name__ in sys.modules
    code = add_to(Code(), "stats").add(movi(R0, 0), EXIT).program(Way.UPROBE)

    def attach():
        try:
            engine.attach(plan([site(program, offsets)], [code]))
        except PrivilegeError as error:
            return f"{error} | {error.hint}"
        return "attached"

    told = without_rights(attach)
    assert told.startswith("creating the map stats: not permitted | missing CAP_BPF and CAP_PERFMON")
    assert "run as root" in told


def test_without_rights_nothing_is_concluded_and_the_refusal_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tmp_path.chmod(0o777)

    def probe():
        found = features.probe_features()
        return f"{found.ring_buffer} {found.fentry} {found.attach_cookie} {found.refusal}"

    assert without_rights(probe) == "None None None this user may not probe the kernel"
    kept = next((tmp_path / "kprobes").glob("features-*"), None)
    assert kept is None or "ring_buffer" not in kept.read_text()


def test_maxactive_needs_a_tracefs_that_can_be_written(tmp_path):
    with pytest.raises(UnsupportedError, match="tracefs"):
        kretprobe_events.KretprobeEvents(str(tmp_path))


@pytest.mark.parametrize("maxactive", [-1, 4097])
def test_a_maxactive_that_the_kernel_does_not_take_is_refused(tmp_path, maxactive):
    (tmp_path / "kprobe_events").write_text("")
    events = kretprobe_events.KretprobeEvents(str(tmp_path))
    with pytest.raises(KprobesError, match="out of range"):
        events.define(Site(0, "vfs_read", symbol="vfs_read"), maxactive)
    events.close()
