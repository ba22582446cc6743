"""What is written for a module, and what is refused; that it compiles and counts right is shown in a kernel."""

from __future__ import annotations

import re

import pytest

from kprobes import (
    Count,
    HashMap,
    Setting,
    comm,
    emit,
    function,
    kprobe,
    kretprobe,
    log,
    now,
    pid,
    stack,
    uprobe,
)
from kprobes.cli.export_module import write_module
from kprobes.compiler.front.compile import Seen, Surroundings, compile_handler
from kprobes.errors import CompileError, UsageError
from kprobes.export.cnaming import Names, c_string, comment, identifier
from kprobes.export.definitions import definition_part
from kprobes.export.handlers import probe_parts
from kprobes.export.module import module_source
from kprobes.export.prelude import HELPERS, with_needs
from kprobes.export.script import script_parts
from kprobes.export.unit import Shared
from kprobes.grammar.events import Events
from kprobes.model.plan import Site
from kprobes.planner.group import Group
from kprobes.planner.places import NoTypes

most = Setting("most", 7, "no more")
verbose = Setting("verbose", False)
opens = Count("opens", by=str)
kept = HashMap("kept", key=int, value=(int, int))


class Plain:
    """Places in a kernel without types."""

    def types_for(self, _kind):
        return NoTypes()

    def variables_for(self, _kind, _sites):
        return None


def written(probe):
    shared = Shared(Names(), ())
    group = Group(probe, (Site(0, probe.places[0], symbol=probe.places[0]),), None)
    parts = probe_parts(probe, [group], Plain(), shared, {})
    return module_source("m", parts, [one.shared() for one in shared.maps.values()]).code


def defined(text):
    return module_source("m", [definition_part(Events("7.2").read(text), Names(), None)]).code


def test_registers_are_spelled_as_the_kernel_does():
    code = defined("p:one vfs_read a=%di b=$arg2 c=$arg7 d=+8(+16(%dx)):u32 e=%ax:s8")
    assert "u64 a = regs->di;" in code
    assert "u64 b = regs->si;" in code
    assert "u64 c = regs_get_kernel_stack_nth(regs, 1);" in code
    assert "word_at(regs->dx + 16, &fault) + 8" in code
    assert "s8 e = regs->ax;" in code


def test_arguments_of_a_return_probe_are_kept_from_the_entry():
    code = defined("r20:one vfs_read result=$retval:s64 size=$arg3")
    assert "call->arg3 = regs->dx;" in code
    assert "u64 size = call->arg3;" in code
    assert ".data_size = sizeof(struct one_call)," in code
    assert "static int one_maxactive = 20;" in code


def test_names_of_arguments_are_identifiers_of_their_own():
    code = defined("p:one vfs_read int=%di regs=%si site=%dx fault=%cx")
    assert "u64 int_ = regs->di;" in code
    assert "u64 regs_2 = regs->si;" in code


@pytest.mark.parametrize("text", ["p:one vfs_read a=file->f_pos", "p:one vfs_read a=count"])
def test_what_needs_types_that_are_not_there_is_refused(text):
    with pytest.raises(UsageError, match="no counterpart"):
        defined(text)


def test_a_definition_with_too_many_strings_is_refused_before_the_stack_overflows():
    words = " ".join(f"s{index}=+{index}(%di):string" for index in range(11))
    with pytest.raises(UsageError, match="1280 bytes"):
        defined(f"p:one vfs_read {words}")


def test_text_of_a_user_ends_neither_a_comment_nor_a_string():
    assert "*/" not in comment(["p:x vfs_read */ int evil;"])[3:-4]
    assert c_string('a"\\\n\x01é') == '"a\\"\\\\\\n\\001\\303\\251"'
    assert identifier("3 x-y") == "p_3_x_y"
    assert identifier("default") == "default_"


def test_helpers_come_behind_those_that_they_need():
    for name in HELPERS:
        order = with_needs([name])
        assert order[-1] == name
        assert all(order.index(need) < order.index(one) for one in order for need in HELPERS[one].needs)


def test_a_setting_is_a_parameter_of_the_module_and_decides_at_run_time():
    @kprobe("vfs_read")
    def limited():
        if comm() == "cat" and now() > most:
            opens.add(by=comm())

    code = written(limited)
    assert re.search(r'if \(strcmp\(current->comm, "cat"\) == 0 && .*READ_ONCE\(most\)', code)
    assert "opens_add(current->comm, 1)" in code


end = Setting("end", 7)


def test_no_local_hides_what_the_function_names():
    @kprobe("vfs_read")
    def bounded():
        for i in range(min(pid(), end)):
            emit(i)

    code = written(bounded)
    assert "s64 end_2;" in code
    assert "READ_ONCE(end)" in code
    assert "s64 end;" not in code


def test_what_crosses_a_yield_has_one_name_whatever_c_calls_so():
    @kretprobe("vfs_read")
    def kept_over():
        out = now()
        current = pid()
        yield
        emit(out, current)

    code = written(kept_over)
    fields = re.search(r"struct kept_over_call \{\n(.*?)\};", code, re.DOTALL)
    assert re.findall(r"(\w+);", fields[1]) == ["out_2", "current_"]
    assert "call->out_2 = " in code
    assert not re.search(r"call->(out|current)\b", code)


@pytest.mark.parametrize("text", ["r:one vfs_read $retval", "handler"])
def test_a_return_that_finds_its_probe_gone_is_left_alone(text):
    @kretprobe("vfs_read")
    def handler():
        yield
        emit(where=named())

    code = written(handler) if text == "handler" else defined(text)
    assert "\tstruct return_site *site = site_of(ri);\n" in code
    assert "\tif (!site)\n\t\treturn 0;\n\tatomic64_inc(&site->hits);\n" in code
    assert code.count("get_kretprobe(ri)") == 1


def named():
    return function()


def test_formats_of_an_f_string_keep_the_base_and_the_type():
    @kprobe("vfs_read")
    def lined():
        seen = now() > 5
        log(f"{hex(now()):>20} {seen:>6} {now():08x}")

    assert re.search(r'pr_info\("%#20llx %6d %08llx\\n",', written(lined))


def test_what_a_setting_decides_when_it_is_compiled_is_said():
    @kprobe("vfs_read")
    def quiet():
        if verbose:
            log("seen")
        opens.add(by=comm())

    code = written(quiet)
    assert "/* verbose was decided when this was exported */" in code
    assert 'pr_info("seen' not in code


def test_a_stack_is_dumped_below_the_event():
    @kprobe("vfs_read")
    def where():
        emit(n=1, stack=stack())

    code = written(where)
    assert 'pr_info("where: n=%lld\\n"' in code
    assert "\tdump_stack();\n" in code


def refused_handlers():
    @kprobe("vfs_read")
    def tuples():
        kept[1] = (2, 3)

    @kretprobe("vfs_read")
    def inside():
        if comm() == "cat":
            yield

    @kprobe("vfs_read")
    def orderless():
        emit(counted(1) + counted(2))

    @kprobe("vfs_read")
    def strings():
        emit(comm() + "x")

    @kprobe("vfs_read")
    def unrolled():
        total = 0
        for one in (1, 2, 3):
            total += one
        emit(total)

    @kprobe("vfs_read")
    def asserted():
        checked(now())

    return [tuples, inside, orderless, strings, unrolled, asserted]


def checked(x):
    assert x > 0


def counted(x):
    opens.add(x, by=comm())
    return x


@pytest.mark.parametrize("probe", refused_handlers(), ids=lambda one: one.handler.name)
def test_what_has_no_counterpart_is_refused_with_its_place_and_a_hint(probe):
    with pytest.raises(CompileError) as caught:
        written(probe)
    assert "a kernel module in C doesn't have it" in str(caught.value)
    assert caught.value.line > 100
    assert caught.value.source
    assert caught.value.hint


def test_probes_of_programs_are_refused():
    @uprobe("libc:malloc")
    def allocated():
        opens.add(by=comm())

    with pytest.raises(UsageError, match="not a uprobe"):
        written(allocated)


def test_the_front_tells_what_it_has_seen():
    @kprobe("vfs_read")
    def one():
        x = now()
        emit(x)

    seen = Seen()
    compile_handler(one.handler, Surroundings(kind="kprobe", types=NoTypes()), seen=seen)
    assert seen.text.source is one.handler
    assert len(seen.terms) >= 2
    assert callable(script_parts)


def test_no_file_is_written_through_a_link(tmp_path):
    source = module_source("m", [definition_part(Events("7.2").read("p:one vfs_read"), Names(), None)])
    (tmp_path / "Makefile").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="Makefile is a link"):
        write_module(tmp_path, source)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["Makefile"]
