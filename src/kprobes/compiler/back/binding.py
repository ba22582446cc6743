"""LLVM through llvmlite's own Python: for releases whose library `library` does not know. It takes 30 ms more."""

from __future__ import annotations

from kprobes.compiler.back.light import light_imports

with light_imports():
    import llvmlite.binding as llvm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from llvmlite.binding import ModuleRef, TargetMachine

_SPEED = 2


class Binding:
    """As `library.Library`."""

    def __init__(self) -> None:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        llvm.initialize_native_asmparser()

    def set_option(self, option: str) -> None:
        """As `library.Library.set_option`."""
        llvm.set_option("kprobes", option)

    def make_machine(
        self, triple: str, cpu: str, features: str = "", reloc: str = "default", codemodel: str = "jitdefault"
    ) -> Machine:
        """As `library.Library.make_machine`."""
        target = llvm.Target.from_triple(triple)
        return Machine(
            target.create_target_machine(cpu=cpu, features=features, opt=_SPEED, reloc=reloc, codemodel=codemodel)
        )


class Machine:
    """As `library.Machine`."""

    def __init__(self, machine: TargetMachine) -> None:
        self.machine = machine

    def parse(self, text: str) -> Module:
        """As `library.Machine.parse`."""
        return Module(self.machine, llvm.parse_assembly(text))


class Module:
    """As `library.Module`."""

    def __init__(self, machine: TargetMachine, module: ModuleRef) -> None:
        self._machine = machine
        self._module = module

    def __enter__(self) -> Module:
        return self

    def __exit__(self, *_: object) -> None:
        self._module.close()

    def __str__(self) -> str:
        return str(self._module)

    def optimise(self) -> None:
        """As `library.Module.optimise`."""
        self._module.verify()
        builder = llvm.create_pass_builder(self._machine, llvm.create_pipeline_tuning_options(speed_level=_SPEED))
        builder.getModulePassManager().run(self._module, builder)

    def emit(self, *, as_object: bool) -> bytes:
        """As `library.Module.emit`."""
        if as_object:
            return bytes(self._machine.emit_object(self._module))
        return str(self._machine.emit_assembly(self._module)).encode()
