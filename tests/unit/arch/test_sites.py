from __future__ import annotations

import random
import shutil
import subprocess
from collections import Counter
from dataclasses import replace

import pytest

from kprobes.arch.x86_64.decode import decode, is_boundary
from kprobes.arch.x86_64.detour import build
from kprobes.arch.x86_64.image import Image
from kprobes.arch.x86_64.patch import IN_PROCESS, Tactic
from kprobes.arch.x86_64.sites import Arming, SitePlan, plan_site, plan_sites
from kprobes.errors import InternalError, UnsafeSiteError

from .emulator import PAGE
from .libc import SLIDE, image, path
from .world import World, arm, called, compare

BASE = SLIDE


def specimen(*functions: str, gap: int = 0, read: object = None) -> Image:
    """Return an image of functions given as hex, one after the other, *gap* bytes of int3 between them."""
    code, extents = b"", []
    for text in functions:
        raw = bytes.fromhex(text)
        extents.append((BASE + len(code), BASE + len(code) + len(raw)))
        code += raw + b"\xcc" * gap
    return Image(BASE, code, extents, read=read)  # type: ignore[arg-type]


def armed(source: Image, *addresses: int, **options: object) -> World:
    """Plan and arm *addresses* of the function at BASE."""
    plans = list(plan_sites(source, addresses, **options).values())  # type: ignore[arg-type]
    function = source.function(addresses[0])
    assert function is not None

    def content(page: int) -> bytes:
        if source.base <= page < source.end:
            return source.bytes_at(page, PAGE).ljust(PAGE, b"\xcc")
        return random.Random(page).randbytes(PAGE)

    return arm(source, content, function, plans, called)


def written(plan: SitePlan, detour: int, victim: int = 0) -> dict[int, str]:
    assert plan.patch is not None
    return {write.address - BASE: write.code.hex() for write in plan.patch.writes(detour, victim)}


PROLOGUE = "554889e5 4883ec20 8945ec c9 c3"  # push rbp; mov rbp, rsp; sub rsp, 0x20; mov [rbp-0x14], eax; leave; ret


def test_an_entry_is_armed_by_a_jump_over_whole_instructions() -> None:
    plan = plan_site(specimen(PROLOGUE), BASE)
    assert (plan.tactic, plan.reason) == (Tactic.JUMP, "5-byte jump; 3 instructions move")
    assert plan.patch is not None
    assert (plan.patch.start, plan.patch.end) == (BASE, BASE + 8)
    assert written(plan, BASE + 0x1000) == {0: "e9fb0f0000"}
    assert compare(armed(specimen(PROLOGUE), BASE), 1) == 1


def test_a_probe_on_endbr64_is_one_behind_it() -> None:
    source = specimen("f30f1efa" + PROLOGUE)
    assert plan_site(source, BASE) == plan_site(source, BASE + 4)
    assert plan_site(source, BASE).address == BASE + 4


@pytest.mark.parametrize("offset", [2, 3, 6])
def test_the_middle_of_an_instruction_is_refused_with_eilseq(offset: int) -> None:
    plan = plan_site(specimen(PROLOGUE), BASE + offset)
    assert (plan.tactic, plan.error, plan.patch) == (Tactic.REFUSED, "EILSEQ", None)
    assert not is_boundary(bytes.fromhex(PROLOGUE), BASE, BASE + offset)


def test_what_is_no_code_of_the_image_is_refused_with_einval() -> None:
    assert plan_site(specimen(PROLOGUE), BASE + 0x1000).error == "EINVAL"
    assert plan_site(specimen(PROLOGUE), BASE - 1).error == "EINVAL"


@pytest.mark.parametrize("raw", ["cc", "0f0b", "f4", "48cf"])
def test_what_cant_run_elsewhere_is_refused_with_eopnotsupp(raw: str) -> None:
    plan = plan_site(specimen("90" + raw + "c3"), BASE + 1)
    assert (plan.tactic, plan.error) == (Tactic.REFUSED, "EOPNOTSUPP")


def test_padding_inside_a_function_is_refused_with_einval() -> None:
    source = specimen("31c0 c3 0f1f440000 31c9 c3")
    assert (plan_site(source, BASE + 3).error, plan_site(source, BASE + 3).reason[:7]) == ("EINVAL", "padding")
    assert plan_site(source, BASE + 8).tactic != Tactic.REFUSED
    # It is none where it may be run: falling through, or jumped to.
    assert plan_site(specimen("31c0 0f1f440000 31c9 c3"), BASE + 2).tactic == Tactic.JUMP
    assert plan_site(specimen("7401 c3 0f1f440000 31c9 c3"), BASE + 3).tactic == Tactic.JUMP


def test_a_jump_goes_over_padding_behind_a_short_function() -> None:
    source = specimen("c3", "c3", gap=4)
    plan = plan_site(source, BASE)
    assert plan.tactic == Tactic.JUMP
    assert plan.patch is not None
    assert plan.patch.end == BASE + 1


def test_padding_that_something_jumps_to_isnt_overwritten() -> None:
    # Function 2 jumps to the second byte of the padding behind function 1.
    source = specimen("c3", "ebfb c3", gap=4)
    assert plan_site(source, BASE).tactic != Tactic.JUMP


def test_a_function_that_runs_on_into_the_next_moves_its_nops_too() -> None:
    # 31c0 falls through three nops into the next function: those are code, not padding.
    source = Image(BASE, bytes.fromhex("31c0 90 90 90 c3"), [(BASE, BASE + 2), (BASE + 5, BASE + 6)])
    plan = plan_site(source, BASE)
    assert plan.patch is not None
    assert (plan.tactic, plan.patch.end) == (Tactic.JUMP, BASE + 5)


LOOP = "ffc8 75fc 4801d1 c3"  # 0: dec eax; 2: jne 0; 4: add rcx, rdx; 7: ret


def test_a_loop_back_to_the_probed_instruction_is_counted_each_time() -> None:
    source = specimen("b803000000" + LOOP)
    plan = plan_site(source, BASE + 5)
    assert plan.tactic == Tactic.JUMP
    world = armed(source, BASE + 5)
    assert compare(world, 3) == 3


def test_no_jump_covers_an_instruction_that_is_jumped_to() -> None:
    # 0: add al, 1; 2: dec ecx; 4: jne 2; 6: ret -- and 5 is no entry.
    source = specimen("b903000000 0401 ffc9 75fc c3 cccccc")
    plan = plan_site(source, BASE + 5)
    assert plan.tactic not in (Tactic.JUMP, Tactic.BREAKPOINT)
    assert compare(armed(source, BASE + 5), 4) == 1
    assert compare(armed(source, BASE + 7), 4) == 3


def test_a_short_instruction_at_the_end_moves_with_those_before_it() -> None:
    source = specimen("4883c408 5b 5d c3", "90")
    plan = plan_site(source, BASE + 6)
    assert (plan.tactic, plan.reason) == (Tactic.BLOCK, "jump 6 bytes before it; 4 instructions move")
    assert compare(armed(source, BASE + 6), 5) == 1


CALLER = "4889df e8f8000000 90 c3"  # mov rdi, rbx; call +0xf8; nop; ret


@pytest.mark.parametrize(("offset", "lead"), [(0, "2e2e2ee8"), (3, "e8")])
def test_a_call_stays_a_call_so_that_its_return_address_is_pushed_by_the_processor(offset: int, lead: str) -> None:
    source = specimen("0f1f440000" + CALLER)
    plan = plan_site(source, BASE + 5 + offset)
    assert plan.tactic == Tactic.CALL
    assert written(plan, BASE + 0x1000)[5 + offset].startswith(lead)
    assert compare(armed(source, BASE + 5 + offset), 6) == 1


def test_what_uses_the_stack_before_a_call_moves_with_an_emulated_call() -> None:
    source = specimen("0f1f440000 53 50 e8f8000000 c3")  # push rbx; push rax; call
    plan = plan_site(source, BASE + 5)
    assert plan.tactic == Tactic.JUMP
    assert plan.patch is not None
    assert not plan.patch.pushed
    assert compare(armed(source, BASE + 5), 7) == 1


def test_a_branch_never_moves_with_a_call_that_is_kept() -> None:
    source = specimen("0f1f440000 7405 e8f8000000 c3")  # je +5; call; ret
    plan = plan_site(source, BASE + 5)
    assert plan.patch is not None
    assert not plan.patch.pushed
    for seed in range(4):
        assert compare(armed(source, BASE + 5), seed) == 1


# 0: mov ecx, 3; 5: add eax, ecx; 7: dec ecx; 9: jne 5; then 32 bytes of plain instructions; ret
TIGHT = "b903000000 01c8 ffc9 75fa" + "4883c001" * 4 + "488d4401 07" * 3 + "c3"


@pytest.mark.parametrize(
    ("tactic", "exclude"),
    [
        (Tactic.PUN, {Tactic.JUMP, Tactic.BLOCK, Tactic.ISLAND, Tactic.EVICTION}),
        (Tactic.EVICTION, {Tactic.JUMP, Tactic.BLOCK, Tactic.PUN}),
    ],
)
def test_a_short_loop_body_is_armed_without_moving_what_is_jumped_to(tactic: str, exclude: set[str]) -> None:
    source = specimen(TIGHT)
    plan = plan_site(source, BASE + 5, exclude=frozenset(exclude))
    assert plan.tactic == tactic
    for seed in range(3):
        assert compare(armed(source, BASE + 5, exclude=frozenset(exclude)), seed) == 3


def test_padding_nearby_serves_as_an_island() -> None:
    source = specimen("b903000000 01c8 ffc9 75fa c3", "c3", gap=16)
    exclude = frozenset({Tactic.JUMP, Tactic.BLOCK, Tactic.PUN})
    plan = plan_site(source, BASE + 5, exclude=exclude)
    assert plan.tactic == Tactic.ISLAND
    assert plan.reason == "2-byte jump to padding at +0x7"
    assert compare(armed(source, BASE + 5, exclude=exclude), 8) == 3


def test_a_pun_leads_only_to_where_its_fixed_bytes_lead() -> None:
    source = specimen(TIGHT)
    plan = plan_site(source, BASE + 5, exclude=frozenset({Tactic.JUMP, Tactic.BLOCK, Tactic.ISLAND, Tactic.EVICTION}))
    assert plan.patch is not None
    low, high = plan.patch.reach
    for detour in (low, high, (low + high) // 2):
        for write in plan.patch.writes(detour):
            patched = bytearray(source.code)
            patched[write.address - BASE : write.address - BASE + len(write.code)] = write.code
            jump = next(item for item in decode(bytes(patched[5:20]), BASE + 5))
            assert jump.target == detour
    with pytest.raises(InternalError):
        plan.patch.writes(high + 1)


def test_a_pun_needs_free_memory_in_its_window() -> None:
    exclude = frozenset({Tactic.JUMP, Tactic.BLOCK, Tactic.ISLAND, Tactic.EVICTION})
    source = specimen(TIGHT)
    plan = plan_site(source, BASE + 5, exclude=exclude)
    assert plan.patch is not None
    outside = (range(plan.patch.reach.high + 0x100_0000, plan.patch.reach.high + 0x200_0000),)
    assert plan_site(source, BASE + 5, exclude=exclude, room=outside).tactic != Tactic.PUN
    inside = (range(plan.patch.reach.low, plan.patch.reach.low + 0x40),)
    assert plan_site(source, BASE + 5, exclude=exclude, room=inside).tactic == Tactic.PUN


def test_no_room_within_2_gib_leaves_the_breakpoint() -> None:
    plan = plan_site(specimen(PROLOGUE), BASE, room=(range(0x1000_0000, 0x2000_0000),))
    assert (plan.tactic, plan.reason) == (Tactic.BREAKPOINT, "no free memory within 2 GiB")
    assert written(plan, 0) == {0: "cc"}


def test_with_every_other_tactic_excluded_a_breakpoint_says_why() -> None:
    source = specimen(TIGHT)
    plan = plan_site(source, BASE + 7, exclude=frozenset(IN_PROCESS))
    assert plan.tactic == Tactic.BREAKPOINT
    assert plan.reason == "the better tactics were excluded"


def test_sites_close_together_share_one_jump() -> None:
    source = specimen(PROLOGUE)
    plans = plan_sites(source, [BASE, BASE + 1, BASE + 4])
    patches = {id(plan.patch) for plan in plans.values()}
    assert len(patches) == 1
    assert plans[BASE].patch is not None
    assert plans[BASE].patch.sites == (BASE, BASE + 1, BASE + 4)
    assert compare(armed(source, BASE, BASE + 1, BASE + 4), 9) == 3


def test_a_later_site_among_instructions_that_made_room_joins_them() -> None:
    source = specimen(TIGHT)
    arming = Arming(source, exclude=frozenset({Tactic.JUMP, Tactic.BLOCK, Tactic.PUN}))
    first = arming.add(BASE + 5)
    assert first.patch is not None
    assert first.patch.victim is not None
    moved = first.patch.victim.instructions[1].address
    second = arming.add(moved)
    assert (second.tactic, second.reason) == (Tactic.EVICTION, f"moved along with the probe at {BASE + 5:#x}")
    assert second.patch is not None
    assert second.patch.victim is not None
    assert second.patch.victim.sites == (moved,)
    assert arming.plans[BASE + 5].patch is second.patch


def test_a_later_site_whose_bytes_another_jump_relies_on_is_busy() -> None:
    source = specimen(TIGHT)
    arming = Arming(source, exclude=frozenset({Tactic.JUMP, Tactic.BLOCK, Tactic.ISLAND, Tactic.EVICTION}))
    assert arming.add(BASE + 5).tactic == Tactic.PUN
    later = arming.add(BASE + 7)
    assert (later.tactic, later.error) == (Tactic.REFUSED, "EBUSY")
    together = plan_sites(source, [BASE + 5, BASE + 7])
    assert all(plan.patch is not None for plan in together.values())


def test_a_block_grows_to_take_in_a_site_behind_it() -> None:
    source = specimen("4883c408 5b 5d 415c c3", "90")
    plans = plan_sites(source, [BASE, BASE + 8])
    assert plans[BASE].patch is plans[BASE + 8].patch
    assert plans[BASE + 8].tactic == Tactic.BLOCK
    assert compare(armed(source, BASE, BASE + 8), 12) == 2


def test_all_instructions_at_once_are_counted_each() -> None:
    for code in (PROLOGUE, TIGHT, "0f1f440000" + CALLER, "b803000000" + LOOP):
        source = specimen(code, "c3", gap=16)
        function = source.function(BASE)
        assert function is not None
        world = armed(source, *(item.address for item in function.instructions))
        compare(world, 10)


def test_a_jump_from_another_function_keeps_its_target_out_of_a_jump() -> None:
    # The second function jumps to the first one's instruction at +2, as a cold part does.
    alone = specimen("31c0 31db 31c9 31d2 c3")
    assert plan_site(alone, BASE).tactic == Tactic.JUMP
    jumped_into = specimen("31c0 31db 31c9 31d2 c3", "e9f4ffffff")
    assert plan_site(jumped_into, BASE).tactic != Tactic.JUMP


def test_an_entry_named_by_the_caller_keeps_out_of_a_jump() -> None:
    code = bytes.fromhex("31c0 31db 31c9 31d2 c3")
    source = Image(BASE, code, [(BASE, BASE + len(code))], entries=[BASE + 2])
    assert plan_site(source, BASE).tactic != Tactic.JUMP


# lea rdx, [rip + 0x100]; movsxd rax, [rdx + rax*4]; add rax, rdx; jmp rax; then six 2-byte instructions and ret
SWITCH = "488d15 f9000000 48630482 4801d0 ffe0 31c0 31db 31c9 31d2 31f6 31ff c3"


def test_jump_tables_are_followed() -> None:
    table = BASE + 0x100

    def read(address: int, size: int) -> bytes:
        offsets = b"".join((BASE + case - table).to_bytes(4, "little", signed=True) for case in (16, 20))
        return (offsets + b"\x7f" * 64)[:size] if address == table else b""

    source = specimen(SWITCH, read=read)
    function = source.function(BASE)
    assert function is not None
    assert {BASE + 16, BASE + 20} <= function.entered
    assert not function.opaque
    assert plan_site(source, BASE + 18).tactic != Tactic.JUMP  # 20 lies in its bytes
    assert plan_site(source, BASE + 20).tactic == Tactic.JUMP


# lea rdx, [rip + 0x100]; jmp [rdx + rax*8]; nop; the same six and ret
SWITCH_BY_ADDRESS = "488d15 f9000000 ff24c2 0f1f4000 31c0 31db 31c9 31d2 31f6 31ff c3"


def test_a_table_of_addresses_ends_where_it_leads_into_an_instruction() -> None:
    table = BASE + 0x100

    def read(address: int, size: int) -> bytes:
        cases = (BASE + 14, BASE + 18, BASE + 19, BASE + 16)  # 19 is no boundary: another table has begun
        return b"".join(case.to_bytes(8, "little") for case in cases)[:size] if address == table else b""

    source = specimen(SWITCH_BY_ADDRESS, read=read)
    function = source.function(BASE)
    assert function is not None
    assert not function.opaque
    assert {BASE + 14, BASE + 18} <= function.entered
    assert not {BASE + 16, BASE + 19} & function.entered


def test_without_a_way_to_read_jump_tables_nothing_but_the_entry_takes_a_jump() -> None:
    source = specimen(SWITCH)
    function = source.function(BASE)
    assert function is not None
    assert function.opaque
    assert plan_site(source, BASE).tactic == Tactic.JUMP
    assert plan_site(source, BASE + 20).tactic not in (Tactic.JUMP, Tactic.BLOCK, Tactic.EVICTION)


def test_an_address_that_no_function_covers_takes_a_breakpoint() -> None:
    source = Image(BASE, bytes.fromhex(PROLOGUE), [])
    plan = plan_site(source, BASE)
    assert (plan.tactic, plan.reason) == (Tactic.BREAKPOINT, "no symbol says where its function begins")


def test_a_shadow_stack_keeps_calls_from_being_emulated() -> None:
    source = specimen("0f1f440000 53 50 e8f8000000 c3", "c3", gap=16)
    plan = plan_site(source, BASE + 5, emulate_calls=False)
    assert plan.patch is not None
    assert plan.patch.instructions[-1].flow == "next"


def test_a_jump_into_its_own_second_byte_takes_a_breakpoint_and_no_more() -> None:
    source = specimen("ebff c0 c3", "c3", gap=16)  # jmp to its ff, which with c0 is `inc eax`
    plan = plan_site(source, BASE)
    assert plan.tactic == Tactic.BREAKPOINT
    assert plan.patch is not None
    slot = build(plan.patch, BASE + 0x1000, {})
    assert decode(slot.code, slot.at)[0].target == BASE + 1
    jump = replace(plan.patch, tactic=Tactic.JUMP, lead=b"\xe9", free=4)
    with pytest.raises(UnsafeSiteError, match="bytes that the patch takes"):
        build(jump, BASE + 0x1000, {})


def test_instructions_of_libc_are_armed_or_refused_with_a_reason() -> None:
    source, _ = image()
    rng = random.Random(11)
    tactics, reasons = Counter[str](), Counter[str]()
    for start in rng.sample(source.starts, 200):
        function = source.function(start)
        assert function is not None
        for item in rng.sample(function.instructions, min(12, len(function.instructions))):
            plan = plan_site(source, item.address)
            tactics[plan.tactic] += 1
            assert plan.reason
            assert (plan.patch is None) == bool(plan.error) == (plan.tactic == Tactic.REFUSED)
            if plan.tactic == Tactic.REFUSED:
                assert plan.error == ("EINVAL" if "padding" in plan.reason else "EOPNOTSUPP")
                reasons[plan.reason] += 1
    print("libc:", dict(tactics), dict(reasons))
    in_process = sum(tactics[tactic] for tactic in IN_PROCESS)
    assert in_process >= 0.995 * (in_process + tactics[Tactic.BREAKPOINT])
    assert reasons.total() - reasons["padding, which nothing runs"] < tactics.total() / 200


@pytest.mark.skipif(not shutil.which("objdump"), reason="needs binutils")
def test_boundaries_in_libc_are_those_that_objdump_finds() -> None:
    source, _ = image()
    start = source.starts[len(source.starts) // 2] - SLIDE
    stop = start + 60_000
    ours = {item.address - SLIDE for item in decode(source.bytes_at(start + SLIDE, 60_000), start + SLIDE)}
    tool = ["objdump", "-d", "-w", "--no-show-raw-insn", f"--start-address={start}", f"--stop-address={stop}", path()]
    listing = subprocess.run(tool, capture_output=True, text=True, check=True).stdout
    theirs = {int(line.split(":")[0], 16) for line in listing.splitlines() if line.startswith("  ")}
    # The last instruction may be cut off.
    ours, theirs = ({address for address in found if address < stop - 16} for found in (ours, theirs))
    assert len(theirs) > 10_000
    assert theirs == ours
