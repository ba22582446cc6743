"""What is registered: `Kprobe`, `Kretprobe` and `Jprobe`, with the members of the kernel's structs of that name.

Source: include/linux/kprobes.h.
"""

from __future__ import annotations

from collections.abc import Iterable

from kprobes.errors import RegistrationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kprobes.kapi.registration import Registration

    Handler = Callable[..., object] | None

KPROBE_FLAG_GONE = 1
KPROBE_FLAG_DISABLED = 2
KPROBE_FLAG_OPTIMIZED = 4
KPROBE_FLAG_FTRACE = 8
KPROBE_FLAG_ON_FUNC_ENTRY = 16


class Kprobe:
    """A probe of one instruction: `struct kprobe`.

    The place is *symbol_name* and *offset*, or *addr*. In a process a symbol is written `libc:malloc` or, of the
    program itself, `main`. Handlers are plain functions, which are compiled when the probe is registered:

        def pre_handler(p, regs): ...             # before the instruction; what it returns, see below
        def post_handler(p, regs, flags): ...     # behind it
        def fault_handler(p, regs, trapnr): ...   # it has faulted (in a process)

    A `pre_handler` that returns anything but 0 has the instruction not run, and no `post_handler`: the program goes on
    behind it, or where the handler has set `regs.ip`. A `fault_handler` that returns anything but 0 has dealt with the
    fault. These, and handlers that set registers, need *unsafe*.

    Of the flags only `KPROBE_FLAG_DISABLED` means something to `register_kprobe`.
    """

    def __init__(
        self,
        *,
        symbol_name: str = "",
        offset: int = 0,
        addr: int = 0,
        pre_handler: Handler = None,
        post_handler: Handler = None,
        fault_handler: Handler = None,
        flags: int = 0,
        unsafe: bool = False,
    ) -> None:
        self.symbol_name = symbol_name
        self.offset = offset
        self.pre_handler = pre_handler
        self.post_handler = post_handler
        self.fault_handler = fault_handler
        self.unsafe = unsafe
        self.registration: Registration | None = None
        self._addr = addr
        self._flags = flags

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.place}>"

    @property
    def kp(self) -> Kprobe:
        """Return the probe itself; of a return probe this is its place."""
        return self

    @property
    def place(self) -> str:
        """Return the place as a person would write it."""
        named = self.symbol_name or f"{self._addr:#x}"
        return f"{named}+{self.offset:#x}" if self.offset else named

    @property
    def asked_addr(self) -> int:
        """Return the address that was asked for, 0 where a symbol was."""
        return self._addr

    @property
    def addr(self) -> int:
        """Return the address of the probe: once it is registered, that of the symbol (0 where addresses are hidden)."""
        return self.registration.addr if self.registration else self._addr

    @addr.setter
    def addr(self, value: int) -> None:
        self._addr = value

    @property
    def flags(self) -> int:
        """Return the flags `KPROBE_FLAG_*`, as they are now."""
        return self.registration.flags if self.registration else self._flags

    @flags.setter
    def flags(self, value: int) -> None:
        self._flags = value

    @property
    def nmissed(self) -> int:
        """Return how often the probe was hit while no handler could run.

        Raises:
            RegistrationError: this kernel doesn't tell.
        """
        return self.registration.nmissed if self.registration else 0

    @property
    def hits(self) -> int:
        """Return how often the probe was hit since it was registered."""
        return self.registration.hits if self.registration else 0


class Kretprobe:
    """A probe of a function's return: `struct kretprobe`. The place is that of a `Kprobe`, at a function's entry.

        def entry_handler(ri, regs): ...    # at the entry; anything but 0: this call's return isn't looked at
        def handler(ri, regs): ...          # at the return

    `ri.data` is kept for the call: its fields are those of the struct class that *data_size* names, or any names, where
    it is a number of bytes (8 for each number). *maxactive* is how many calls can be under way, 0 for the usual.
    """

    def __init__(
        self,
        *,
        kp: Kprobe | None = None,
        symbol_name: str = "",
        offset: int = 0,
        addr: int = 0,
        handler: Handler = None,
        entry_handler: Handler = None,
        data_size: int | type = 0,
        maxactive: int = 0,
        flags: int = 0,
    ) -> None:
        self.kp = kp or Kprobe(symbol_name=symbol_name, offset=offset, addr=addr, flags=flags)
        self.handler = handler
        self.entry_handler = entry_handler
        self.data_size = data_size
        self.maxactive = maxactive

    def __repr__(self) -> str:
        return f"<Kretprobe {self.kp.place}>"

    @property
    def nmissed(self) -> int:
        """Return how many calls found no room: `maxactive` others were under way."""
        return self.kp.nmissed


class Jprobe:
    """A probe of a function's entry whose handler is written like the function: `struct jprobe`, until Linux 4.14.

    def entry(file, count): ...         # any of the parameters of the probed function, by their names in C
    """

    def __init__(
        self,
        *,
        kp: Kprobe | None = None,
        symbol_name: str = "",
        entry: Handler = None,
        flags: int = 0,
    ) -> None:
        self.kp = kp or Kprobe(symbol_name=symbol_name, flags=flags)
        self.entry = entry

    def __repr__(self) -> str:
        return f"<Jprobe {self.kp.place}>"

    @property
    def nmissed(self) -> int:
        """Return how often the function was entered while the handler could not run."""
        return self.kp.nmissed


Registrable = Kprobe | Kretprobe | Jprobe


def check_members(thing: Registrable) -> None:
    """Refuse what is no probe, and numbers and names that are none.

    Raises:
        RegistrationError: EINVAL.
    """
    if not isinstance(thing, Registrable):
        what = f"a Kprobe, Kretprobe or Jprobe is wanted here, this is {type(thing).__name__}"
        raise RegistrationError(what, "EINVAL", hint='as in Kprobe(symbol_name="vfs_read")')
    kp = thing.kp
    if not isinstance(kp, Kprobe):
        hint = 'as in Kretprobe(kp=Kprobe(symbol_name="vfs_read")), or by symbol_name= itself'
        raise RegistrationError("kp is no Kprobe", "EINVAL", hint=hint)
    numbers = {"offset": kp.offset, "addr": kp.asked_addr, "maxactive": getattr(thing, "maxactive", 0)}
    numbers["flags"] = 0 if kp.registration else kp.flags
    wrong = next((name for name, value in numbers.items() if not isinstance(value, int)), "")
    if wrong or not isinstance(kp.symbol_name, str):
        what = f"{wrong} is no number" if wrong else "symbol_name is no name"
        raise RegistrationError(what, "EINVAL", hint='as in Kprobe(symbol_name="vfs_read", offset=4)')


def listed(things: Iterable[Registrable]) -> tuple[Registrable, ...]:
    """Return several probes.

    Raises:
        RegistrationError: EINVAL: it is one, or none.
    """
    if isinstance(things, Iterable):
        return tuple(things)
    what = f"a list of probes is wanted here, this is {type(things).__name__}"
    raise RegistrationError(what, "EINVAL", hint="as in register_kprobes([kp])")


def require(kind: type, *things: object) -> None:
    """Refuse what is of another kind.

    Raises:
        RegistrationError: EINVAL.
    """
    for thing in things:
        if not isinstance(thing, kind):
            what = f"a {kind.__name__} is wanted here, this is {type(thing).__name__}"
            hint = f"each kind has its own functions: register_{kind.__name__.lower()} and so on"
            raise RegistrationError(what, "EINVAL", hint=hint)
