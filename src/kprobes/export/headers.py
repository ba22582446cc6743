"""Which header of the kernel defines which struct, and C types as text."""

from __future__ import annotations

from kprobes.model.ctype import Enum, Int, Pointer, Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.model.ctype import CType

_HEADERS = """
linux/blk_types.h bio block_device
linux/blk-mq.h request
linux/blkdev.h gendisk request_queue
linux/binfmts.h linux_binprm
linux/cdev.h cdev
linux/cgroup-defs.h cgroup cgroup_subsys_state css_set
linux/completion.h completion
linux/cred.h cred group_info
linux/dcache.h dentry qstr
linux/device.h device device_driver bus_type
linux/fdtable.h fdtable files_struct
linux/fs.h file inode super_block address_space kiocb file_operations inode_operations file_system_type iattr
linux/fs_struct.h fs_struct
linux/hrtimer.h hrtimer
linux/in.h sockaddr_in in_addr
linux/interrupt.h irqaction tasklet_struct softirq_action
linux/ipc_namespace.h ipc_namespace
linux/kobject.h kobject
linux/list.h list_head
linux/mm_types.h mm_struct vm_area_struct page folio
linux/mmzone.h zone pglist_data
linux/module.h module
linux/mount.h vfsmount
linux/mutex.h mutex
linux/net.h socket proto_ops
linux/netdevice.h net_device napi_struct
linux/nsproxy.h nsproxy
linux/path.h path
linux/pid.h pid upid
linux/pid_namespace.h pid_namespace
linux/poll.h poll_table_struct
linux/ptrace.h pt_regs
linux/resource.h rlimit
linux/rwsem.h rw_semaphore
linux/sched.h task_struct sched_entity sched_info
linux/sched/signal.h signal_struct sighand_struct
linux/seq_file.h seq_file
linux/signal_types.h kernel_siginfo k_sigaction
linux/skbuff.h sk_buff
linux/socket.h msghdr sockaddr
linux/tcp.h tcp_sock
linux/time64.h timespec64
linux/timer.h timer_list
linux/types.h callback_head hlist_head hlist_node
linux/uio.h iov_iter iovec kvec
linux/user_namespace.h user_namespace
linux/utsname.h new_utsname uts_namespace
linux/wait.h wait_queue_head wait_queue_entry
linux/workqueue.h work_struct delayed_work
net/inet_connection_sock.h inet_connection_sock
net/inet_sock.h inet_sock
net/sock.h sock sock_common proto
uapi/linux/openat2.h open_how
"""
STRUCTS = {
    struct: header
    for header, *structs in (line.split() for line in _HEADERS.strip().splitlines())
    for struct in structs
}


def header_of(struct: Struct) -> str | None:
    """Return the public header that defines *struct*, or None where none is known to."""
    return STRUCTS.get(struct.name)


def pointer_text(target: CType) -> str:
    """Return the type of a pointer to *target* as C writes it in a declaration, with the star: `struct file *`."""
    if isinstance(target, Struct) and target.name:
        return f"{'union' if target.is_union else 'struct'} {target.name} *"
    if isinstance(target, Pointer):
        return f"{pointer_text(target.target)}*"
    if isinstance(target, Int):
        return "char *" if target.name == "char" else f"{integer_text(target.size, signed=target.signed)} *"
    if isinstance(target, Enum) and target.name:
        return f"enum {target.name} *"
    return "void *"


def integer_text(size: int, *, signed: bool) -> str:
    """Return the kernel's name of an integer of *size* bytes."""
    return f"{'s' if signed else 'u'}{8 * size}"
