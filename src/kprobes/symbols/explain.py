"""What is known about a kernel function, for `kprobes info`."""

from __future__ import annotations

import re

from kprobes.frozen import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.model.facts import Facts
    from kprobes.symbols.btf_types import KernelTypes
    from kprobes.symbols.kernel import KernelSymbols

# Functions people probe for a purpose that a tracepoint serves on every kernel: the function may be renamed or inlined
# in the next release, the tracepoint stays.
_TRACEPOINTS = (
    (r"__?schedule", "sched/sched_switch"),
    (r"try_to_wake_up|wake_up_process", "sched/sched_wakeup"),
    (r"do_exit|do_group_exit", "sched/sched_process_exit"),
    (r"kernel_clone|_do_fork|copy_process", "sched/sched_process_fork"),
    (r"bprm_execve|begin_new_exec|do_execveat_common", "sched/sched_process_exec"),
    (r"set_task_cpu|migrate_task_to", "sched/sched_migrate_task"),
    (r"blk_mq_start_request", "block/block_rq_issue"),
    (r"blk_mq_end_request|blk_update_request|blk_account_io_done", "block/block_rq_complete"),
    (r"submit_bio(_noacct)?", "block/block_bio_queue"),
    (r"tcp_set_state|inet_sk_state_store", "sock/inet_sock_set_state"),
    (r"tcp_retransmit_skb|__tcp_retransmit_skb", "tcp/tcp_retransmit_skb"),
    (r"tcp_send_active_reset|tcp_v4_send_reset", "tcp/tcp_send_reset"),
    (r"tcp_rcv_established", "tcp/tcp_probe"),
    (r"__?dev_queue_xmit", "net/net_dev_queue"),
    (r"(__)?netif_receive_skb(_core)?", "net/netif_receive_skb"),
    (r"kfree_skb(_reason|_partial)?|sk_skb_reason_drop", "skb/kfree_skb"),
    (r"__alloc_pages(_noprof|_nodemask)?", "kmem/mm_page_alloc"),
    (r"__free_pages|free_unref_page", "kmem/mm_page_free"),
    (r"__kmalloc\w*|kmalloc\w*", "kmem/kmalloc"),
    (r"kfree", "kmem/kfree"),
    (r"kmem_cache_alloc\w*", "kmem/kmem_cache_alloc"),
    (r"kmem_cache_free", "kmem/kmem_cache_free"),
    (r"handle_mm_fault|do_user_addr_fault|exc_page_fault", "exceptions/page_fault_user"),
    (r"out_of_memory|oom_kill_process", "oom/mark_victim"),
    (r"shrink_node|try_to_free_pages", "vmscan/mm_vmscan_direct_reclaim_begin"),
    (r"(__)?send_signal(_locked)?", "signal/signal_generate"),
    (r"get_signal", "signal/signal_deliver"),
    (r"__do_softirq|handle_softirqs", "irq/softirq_entry"),
    (r"__?handle_irq_event_percpu|handle_irq_event", "irq/irq_handler_entry"),
    (r"__queue_work|queue_work_on", "workqueue/workqueue_queue_work"),
    (r"process_one_work", "workqueue/workqueue_execute_start"),
    (r"call_timer_fn", "timer/timer_expire_entry"),
    (r"__run_hrtimer|__hrtimer_run_queues", "timer/hrtimer_expire_entry"),
    (r"printk|_printk|vprintk\w*", "printk/console"),
    (r"load_module|do_init_module", "module/module_load"),
)
_SYSCALL = re.compile(r"(?:__(?:x64|ia32|arm64|se|do)_sys_|ksys_|do_sys_|sys_)(?P<name>\w+)\Z")
_RENAMED_SYSCALLS = {"openat2": "openat", "open": "openat"}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known about a function.

    *prototype* is C text, empty where there is no type information. *refusal* says why no probe can go to its entry,
    empty where one can. *traceable* is None where the kernel doesn't tell. *copies* were made of it by the compiler.
    *tracepoints* (`category:name`) serve the same purpose and are steadier.
    """

    name: str
    module: str
    address: int
    size: int
    prototype: str
    refusal: str
    traceable: bool | None
    copies: tuple[str, ...]
    tracepoints: tuple[str, ...]


def explain(name: str, symbols: KernelSymbols, types: KernelTypes | None, facts: Facts) -> Explanation:
    """Return what is known about the function *name* (`name` or `module:name`).

    Raises:
        SymbolNotFoundError, AmbiguousSymbolError, UnprobeableError: as `KernelSymbols.resolve`, but not for a function
        that merely can't be probed.
    """
    symbol = symbols.function(name)
    table = symbols.table
    known = symbols.known_as(symbol)
    prototype = types.declaration(known.name, known.module) if types is not None else None
    return Explanation(
        name=symbol.name,
        module=symbol.module,
        address=symbol.address,
        size=0 if table.hidden else table.size_of(symbol),
        prototype=prototype or "",
        refusal=symbols.refusal(symbol),
        traceable=symbols.is_traceable(known),
        copies=tuple(dict.fromkeys(copy.name for copy in table.variants(symbol.name))),
        tracepoints=tuple(point.replace("/", ":") for point in steadier_tracepoints(symbol.name, facts)),
    )


def steadier_tracepoints(function: str, facts: Facts) -> list[str]:
    """Return the tracepoints (`category/name`) of this kernel that serve the purpose of probing *function*."""
    wanted = [point for pattern, point in _TRACEPOINTS if re.fullmatch(pattern, function)]
    syscall = _SYSCALL.match(function)
    if syscall:
        plain = _RENAMED_SYSCALLS.get(syscall["name"], syscall["name"])
        wanted += [f"syscalls/sys_enter_{plain}", f"syscalls/sys_exit_{plain}"]
    return [point for point in wanted if facts.text(f"format:{point}") is not None]
