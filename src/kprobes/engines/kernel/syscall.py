"""The system calls of the kernel engine, one typed function per command; no libbpf.

`union bpf_attr` is packed by hand: each command takes a prefix of the union, and the kernel accepts a prefix of any
length as long as what it doesn't know is zero. So each function packs only as far as it has something to say, which
also lets the same call work on kernels that know fewer fields.

Source: include/uapi/linux/bpf.h and include/uapi/linux/perf_event.h, Linux 6.18.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from kprobes.errors import KprobesError, SyscallError
from kprobes.frozen import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# System call numbers by machine: (bpf, perf_event_open). The mount calls have one number everywhere.
_NUMBERS = {"x86_64": (321, 298), "aarch64": (280, 241), "i686": (357, 336)}
_BPF, _PERF_EVENT_OPEN = _NUMBERS.get(os.uname().machine, _NUMBERS["x86_64"])
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_FSOPEN_CLOEXEC, _FSCONFIG_CMD_CREATE, _FSMOUNT_CLOEXEC = 1, 6, 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

# Commands of bpf(2).
_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _MAP_NEXT_KEY = 0, 1, 2, 4
_MAP_DELETE, _MAP_TAKE, _MAP_TAKE_BATCH = 3, 21, 25
_PROG_LOAD, _INFO_BY_FD, _RAW_TRACEPOINT_OPEN, _BTF_LOAD = 5, 15, 17, 18
_BTF_FD_BY_ID, _MAP_FREEZE, _BTF_NEXT_ID, _MAP_LOOKUP_BATCH, _LINK_CREATE = 19, 22, 23, 24, 28

# The verifier gives up with EAGAIN when a signal is pending; libbpf tries five times, a busy session sees more.
_LOAD_ATTEMPTS = 20

ENOTSUPP = 524  # the kernel's own "not supported", which has no name in user space


class MapType:
    """enum bpf_map_type."""

    HASH = 1
    ARRAY = 2
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    STACK_TRACE = 7
    LRU_HASH = 9
    ARRAY_OF_MAPS = 12
    QUEUE = 22
    RINGBUF = 27


class MapFlag:
    """Flags of BPF_MAP_CREATE."""

    RDONLY_PROG = 1 << 7
    MMAPABLE = 1 << 10


class ProgramType:
    """enum bpf_prog_type."""

    KPROBE = 2
    TRACEPOINT = 5
    PERF_EVENT = 7
    RAW_TRACEPOINT = 17
    TRACING = 26


class AttachType:
    """enum bpf_attach_type."""

    NONE = 0
    FENTRY = 24
    FEXIT = 25
    PERF_EVENT = 41
    KPROBE_MULTI = 42
    UPROBE_MULTI = 48


RETURN_FLAG = 1  # BPF_F_KPROBE_MULTI_RETURN and BPF_F_UPROBE_MULTI_RETURN

PERF_TYPE_SOFTWARE, PERF_TYPE_TRACEPOINT = 1, 2
PERF_COUNT_SW_DUMMY = 9
_PERF_FLAG_FD_CLOEXEC = 8
_PERF_IOC_SET_BPF = 0x40042408

Buffer = ctypes.Array[ctypes.c_char]


def buffer(content: bytes | int) -> Buffer:
    """Return memory that the kernel may read and write: *content*, or that many zero bytes."""
    if isinstance(content, int):
        return ctypes.create_string_buffer(content)
    return ctypes.create_string_buffer(content, len(content))


def address_of(memory: Buffer) -> int:
    """Return the address of *memory*, which the caller keeps alive until the system call is done."""
    return ctypes.addressof(memory)


def failure(doing: str, number: int) -> KprobesError:
    """Return the error for the errno *number*: a PrivilegeError that names the right for EPERM, else a SyscallError."""
    if number == errno.EPERM:
        from kprobes.engines.kernel.privilege import missing_right  # only where something failed

        return missing_right(doing)
    return SyscallError(doing, number)


def _call(number: int, *arguments: object) -> int:
    """Return the result of a system call, or minus its errno."""
    while True:
        result = int(_libc.syscall(ctypes.c_long(number), *arguments))
        if result >= 0:
            return result
        code = ctypes.get_errno()
        if code != errno.EINTR:
            return -code


def _bpf(command: int, attributes: Buffer) -> int:
    return _call(_BPF, ctypes.c_long(command), attributes, ctypes.c_ulong(len(attributes)))


def _bpf_checked(command: int, attributes: Buffer, doing: str) -> int:
    result = _bpf(command, attributes)
    if result < 0:
        raise failure(doing, -result)
    return result


def object_name(name: str) -> bytes:
    """Return *name* as the kernel accepts it for maps and programs: at most 15 of letters, digits, `_` and `.`."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_.") else "_" for c in name[:15]).encode()


@dataclass(frozen=True, slots=True)
class MapShape:
    """What BPF_MAP_CREATE takes."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    inner: int = 0  # descriptor of a map like those that an array of maps holds


def map_create(name: str, shape: MapShape) -> int:
    """Return the descriptor of a new map."""
    fields = (shape.type, shape.key_size, shape.value_size, shape.max_entries, shape.flags)
    attributes = buffer(struct.pack("<7I16s", *fields, shape.inner, 0, object_name(name)))
    return _bpf_checked(_MAP_CREATE, attributes, f"creating the map {name}")


def map_lookup(fd: int, key: bytes, value_size: int) -> bytes | None:
    """Return the value of *key*, or None."""
    keys, value = buffer(key), buffer(value_size)
    attributes = buffer(struct.pack("<I4xQQQ", fd, ctypes.addressof(keys), ctypes.addressof(value), 0))
    result = _bpf(_MAP_LOOKUP, attributes)
    if result == -errno.ENOENT:
        return None
    if result < 0:
        raise failure("reading a map", -result)
    return value.raw


def map_update(fd: int, key: bytes, value: bytes) -> None:
    """Set *key* to *value*."""
    keys, values = buffer(key), buffer(value)
    attributes = buffer(struct.pack("<I4xQQQ", fd, ctypes.addressof(keys), ctypes.addressof(values), 0))
    _bpf_checked(_MAP_UPDATE, attributes, "filling a map")


def map_delete(fd: int, key: bytes) -> bool:
    """Forget *key*; tell whether it was there."""
    keys = buffer(key)
    result = _bpf(_MAP_DELETE, buffer(struct.pack("<I4xQ", fd, ctypes.addressof(keys))))
    if result < 0 and result != -errno.ENOENT:
        raise failure("taking a key out of a map", -result)
    return result == 0


def map_take(fd: int, value_size: int) -> bytes | None:
    """Return the oldest value of a queue, which then is no longer there; None where it is empty."""
    value = buffer(value_size)
    result = _bpf(_MAP_TAKE, buffer(struct.pack("<I4xQQQ", fd, 0, ctypes.addressof(value), 0)))
    if result == -errno.ENOENT:
        return None
    if result < 0:
        raise failure("taking from a queue", -result)
    return value.raw


def map_freeze(fd: int) -> None:
    """Make a map read-only for user space, so that the verifier may take its values for constants."""
    _bpf_checked(_MAP_FREEZE, buffer(struct.pack("<I", fd)), "freezing a map")


def map_next_key(fd: int, key: bytes | None, key_size: int) -> bytes | None:
    """Return the key after *key* (the first for None), or None at the end."""
    following = buffer(key_size)
    keys = None if key is None else buffer(key)
    start = 0 if keys is None else ctypes.addressof(keys)
    result = _bpf(_MAP_NEXT_KEY, buffer(struct.pack("<I4xQQQ", fd, start, ctypes.addressof(following), 0)))
    if result == -errno.ENOENT:
        return None
    if result < 0:
        raise failure("walking a map", -result)
    return following.raw


@dataclass(frozen=True, slots=True)
class Batch:
    """What one BPF_MAP_LOOKUP_BATCH or BPF_MAP_LOOKUP_AND_DELETE_BATCH gave: *code* is 0 or the errno, *found* pairs,
    and the place to go on from."""

    code: int
    found: int
    keys: bytes
    values: bytes
    place: bytes


def map_lookup_batch(fd: int, sizes: tuple[int, int], count: int, place: bytes | None, *, take: bool = False) -> Batch:
    """Read up to *count* pairs of a hash map whose key and value have *sizes*, from *place* (None: the beginning);
    *take* them out.

    ENOENT in the result says that this was the last batch, ENOSPC that *count* is too small for one bucket.
    """
    keys, values = buffer(sizes[0] * count), buffer(sizes[1] * count)
    start = None if place is None else buffer(place)
    end = buffer(max(sizes[0], 8))
    pointers = (0 if start is None else ctypes.addressof(start), *map(ctypes.addressof, (end, keys, values)))
    attributes = buffer(struct.pack("<4QIIQQ", *pointers, count, fd, 0, 0))
    result = _bpf(_MAP_TAKE_BATCH if take else _MAP_LOOKUP_BATCH, attributes)
    found = int(struct.unpack_from("<I", attributes, 32)[0]) if result in (0, -errno.ENOENT) else 0
    return Batch(-result, found, keys.raw[: found * sizes[0]], values.raw[: found * sizes[1]], end.raw)


@dataclass(frozen=True, slots=True)
class ProgramRequest:
    """What BPF_PROG_LOAD takes. Descriptors are 0 where there is none; *instructions* are relocated."""

    name: str
    type: int
    instructions: bytes
    license: str
    attach_type: int = AttachType.NONE
    btf: int = 0
    func_info: bytes = b""
    line_info: bytes = b""
    attach_btf_id: int = 0
    attach_btf: int = 0


class LogLevel:
    """How much the verifier writes: each instruction that it walks, or only what is wrong."""

    NOTHING = 0
    INSTRUCTIONS = 1
    WORDS = 4  # BPF_LOG_STATS: the statistics, with what is wrong before them


def prog_load(request: ProgramRequest, level: int = LogLevel.NOTHING, log_size: int = 0) -> tuple[int, str]:
    """Load a program; return its descriptor, or minus the errno, and the verifier's log of at most *log_size* bytes."""
    text, license_text = buffer(request.instructions), buffer(request.license.encode() + b"\0")
    log = buffer(max(log_size, 1))
    functions, lines = buffer(request.func_info), buffer(request.line_info)
    attributes = buffer(
        struct.pack(
            "<IIQQIIQII16sIIIIQIIQII",
            *(request.type, len(request.instructions) // 8, ctypes.addressof(text), ctypes.addressof(license_text)),
            *(level, log_size, ctypes.addressof(log) if log_size else 0, 0, 0),
            *(object_name(request.name), 0, request.attach_type, request.btf),
            *(8 if request.func_info else 0, ctypes.addressof(functions) if request.func_info else 0),
            *(len(request.func_info) // 8, 16 if request.line_info else 0),
            *(ctypes.addressof(lines) if request.line_info else 0, len(request.line_info) // 16),
            request.attach_btf_id,
        )
        + (struct.pack("<II", request.attach_btf, 0) if request.attach_btf else b"")
    )
    for _ in range(_LOAD_ATTEMPTS):
        result = _bpf(_PROG_LOAD, attributes)
        if result != -errno.EAGAIN:
            break
    return result, log.value.decode("utf-8", "replace") if log_size else ""


def btf_load(blob: bytes) -> int:
    """Return the descriptor of the BTF *blob*."""
    data = buffer(blob)
    attributes = buffer(struct.pack("<QQIII4x", ctypes.addressof(data), 0, len(blob), 0, 0))
    return _bpf_checked(_BTF_LOAD, attributes, "loading the type information of the handlers")


def _id_command(command: int, start: int) -> tuple[int, int]:
    attributes = buffer(struct.pack("<III", start, 0, 0))
    result = _bpf(command, attributes)
    return result, int(struct.unpack_from("<I", attributes, 4)[0])


def btf_next_id(start: int) -> int | None:
    """Return the id of the BTF object after *start*, or None at the end."""
    result, following = _id_command(_BTF_NEXT_ID, start)
    if result == -errno.ENOENT:
        return None
    if result < 0:
        raise failure("walking the kernel's type information", -result)
    return following


def btf_open(number: int) -> int | None:
    """Return a descriptor of the BTF object *number*, or None if it has just gone."""
    result, _ = _id_command(_BTF_FD_BY_ID, number)
    if result == -errno.ENOENT:
        return None
    if result < 0:
        raise failure("opening the kernel's type information", -result)
    return result


def object_info(fd: int, info: Buffer, doing: str) -> int:
    """Fill *info* with what BPF_OBJ_GET_INFO_BY_FD tells of *fd*; return how many bytes this kernel knows."""
    attributes = buffer(struct.pack("<IIQ", fd, len(info), ctypes.addressof(info)))
    _bpf_checked(_INFO_BY_FD, attributes, doing)
    return int(struct.unpack_from("<I", attributes, 4)[0])


def btf_name(fd: int) -> tuple[str, bool]:
    """Return the name of a BTF object (`vmlinux` or a module's) and whether it is the kernel's own."""
    name = buffer(64)
    info = buffer(struct.pack("<QIIQII", 0, 0, 0, ctypes.addressof(name), len(name), 0))
    object_info(fd, info, "reading the name of type information")
    return name.value.decode("utf-8", "replace"), bool(struct.unpack_from("<I", info, 28)[0])


def link_create(program: int, target: int, attach_type: int, extra: bytes = b"") -> int:
    """Create a link; return its descriptor, or minus the errno. *extra* is what follows `flags` in the union."""
    return _bpf(_LINK_CREATE, buffer(struct.pack("<iiII", program, target, attach_type, 0) + extra))


def link_perf_event(program: int, event: int, cookie: int) -> int:
    """Attach *program* to a perf event, with a cookie; return the link, or minus the errno."""
    return link_create(program, event, AttachType.PERF_EVENT, struct.pack("<Q", cookie))


def link_tracing(program: int, attach_type: int, cookie: int) -> int:
    """Attach an fentry or fexit program with a cookie; return the link, or minus the errno."""
    return link_create(program, 0, attach_type, struct.pack("<I4xQ", 0, cookie))


def link_kprobe_multi(program: int, places: Sequence[int] | Sequence[str], cookies: Sequence[int], flags: int) -> int:
    """Attach to all *places* (addresses or symbols) at once; return the link, or minus the errno."""
    count = len(places)
    if isinstance(places[0], str):
        texts = [buffer(str(place).encode() + b"\0") for place in places]
        pointers = buffer(struct.pack(f"<{count}Q", *map(ctypes.addressof, texts)))
        where = (ctypes.addressof(pointers), 0)
    else:
        pointers = buffer(struct.pack(f"<{count}Q", *places))
        where = (0, ctypes.addressof(pointers))
    numbers = buffer(struct.pack(f"<{count}Q", *cookies))
    extra = struct.pack("<IIQQQ", flags, count, *where, ctypes.addressof(numbers))
    return link_create(program, 0, AttachType.KPROBE_MULTI, extra)


@dataclass(frozen=True, slots=True)
class FileProbes:
    """Places in one file for a uprobe.multi link: file offsets, the cookie of each, and a process or 0 for all."""

    path: str
    offsets: tuple[int, ...]
    cookies: tuple[int, ...]
    pid: int = 0
    flags: int = 0


def link_uprobe_multi(program: int, probes: FileProbes) -> int:
    """Attach to all places of *probes* at once; return the link, or minus the errno. Since Linux 6.6."""
    count = len(probes.offsets)
    path = buffer(os.fsencode(probes.path) + b"\0")
    offsets = buffer(struct.pack(f"<{count}Q", *probes.offsets))
    cookies = buffer(struct.pack(f"<{count}Q", *probes.cookies))
    pointers = (ctypes.addressof(path), ctypes.addressof(offsets), 0, ctypes.addressof(cookies))
    extra = struct.pack("<QQQQIIII", *pointers, count, probes.flags, probes.pid, 0)
    return link_create(program, 0, AttachType.UPROBE_MULTI, extra)


def raw_tracepoint_open(program: int, name: str) -> int:
    """Attach to the raw tracepoint *name*, or with an empty name an fentry/fexit program; the link or minus errno."""
    text = buffer(name.encode() + b"\0")
    attributes = buffer(struct.pack("<QI4x", ctypes.addressof(text) if name else 0, program))
    return _bpf(_RAW_TRACEPOINT_OPEN, attributes)


@dataclass(frozen=True, slots=True)
class PerfEvent:
    """What perf_event_open(2) takes here. *pid* -1 means all processes, seen from *cpu*."""

    type: int
    config: int = 0
    config1: int = 0
    config2: int = 0
    pid: int = -1
    cpu: int = -1


def perf_event_open(event: PerfEvent) -> int:
    """Open a perf event; return its descriptor, or minus the errno."""
    # type, size, config, sample_period, sample_type, read_format, flags, wakeup, bp_type, config1, config2
    fields = (event.type, 72, event.config, 0, 0, 0, 0, 0, 0, event.config1, event.config2)
    attributes = buffer(struct.pack("<IIQQQQQIIQQ", *fields))
    where = (ctypes.c_long(event.pid), ctypes.c_long(event.cpu), ctypes.c_long(-1))
    return _call(_PERF_EVENT_OPEN, attributes, *where, ctypes.c_ulong(_PERF_FLAG_FD_CLOEXEC))


def perf_set_bpf(event: int, program: int) -> int:
    """Attach *program* to a perf event the old way, without a cookie; return 0, or minus the errno."""
    if _libc.ioctl(ctypes.c_int(event), ctypes.c_ulong(_PERF_IOC_SET_BPF), ctypes.c_ulong(program)) < 0:
        return -ctypes.get_errno()
    return 0


def mount_private(filesystem: str) -> int:
    """Return a descriptor of a mount of *filesystem* that nobody else sees and that ends with it, or minus the errno.

    Source: fsopen(2), fsconfig(2), fsmount(2), since Linux 5.2.
    """
    context = _call(_FSOPEN, ctypes.c_char_p(filesystem.encode()), ctypes.c_ulong(_FSOPEN_CLOEXEC))
    if context < 0:
        return context
    try:
        create = (ctypes.c_long(_FSCONFIG_CMD_CREATE), None, None, ctypes.c_long(0))
        result = _call(_FSCONFIG, ctypes.c_long(context), *create)
        if result < 0:
            return result
        return _call(_FSMOUNT, ctypes.c_long(context), ctypes.c_ulong(_FSMOUNT_CLOEXEC), ctypes.c_long(0))
    finally:
        os.close(context)
