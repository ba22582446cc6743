/* The handlers of bench/instructions.py as one would write them in C, with the same bookkeeping: hits, missed calls,
 * lost events and faults are counted, without a key in each CPU's share of an array, and writes to a full map by map, and nothing is left
 * uninitialised.
 * Offsets stand for what CO-RE would fill in. */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;
#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

static void *(*lookup)(void *, const void *) = (void *)1;
static long (*update)(void *, const void *, const void *, u64) = (void *)2;
static long (*delete)(void *, const void *) = (void *)3;
static u64 (*ktime)(void) = (void *)5;
static u32 (*cpu)(void) = (void *)8;
static u64 (*pid_tgid)(void) = (void *)14;
static long (*comm)(void *, u32) = (void *)16;
static long (*read_kernel)(void *, u32, const void *) = (void *)113;
static long (*read_kernel_str)(void *, u32, const void *) = (void *)115;
static void *(*reserve)(void *, u64, u64) = (void *)131;
static void (*submit)(void *, u64) = (void *)132;

enum { SHARDS = 4, HITS = 0, MISSED = 1, LOST = 2, FAULTS = 3, NOEXIST = 1, EEXIST = 17 };
extern u64 calls_dropped, usecs_dropped, last_dropped, stats[SHARDS][4], sizes[SHARDS][66];
extern u8 zeros[1024], calls, usecs, last, inflight, ring;

INLINE void count(int what) { __sync_fetch_and_add(&stats[cpu() & (SHARDS - 1)][what], 1); }

INLINE u64 log2_32(u32 v)
{
	u32 r, shift;
	r = (v > 0xFFFF) << 4; v >>= r;
	shift = (v > 0xFF) << 3; v >>= shift; r |= shift;
	shift = (v > 0xF) << 2; v >>= shift; r |= shift;
	shift = (v > 0x3) << 1; v >>= shift; r |= shift;
	return r | (v >> 1);
}

INLINE u64 bucket(s64 sample)
{
	if (sample <= 0)
		return sample == 0;
	u32 high = (u64)sample >> 32;
	return 2 + (high ? log2_32(high) + 32 : log2_32(sample));
}

/* Returns whether it failed. */
INLINE int add(void *map, void *key, u64 amount, u64 *dropped)
{
	u64 *there = lookup(map, key);
	if (!there) {
		if (!update(map, key, &amount, NOEXIST))
			return 0;
		there = lookup(map, key);
		if (!there) {
			__sync_fetch_and_add(dropped, 1);
			return 1;
		}
	}
	__sync_fetch_and_add(there, amount);
	return 0;
}

SEC("count") long count_hits(u64 *ctx)
{
	count(HITS);
	return 0;
}

SEC("keyed") long count_by_comm(u64 *ctx)
{
	char key[16];
	count(HITS);
	comm(key, sizeof key);
	if (add(&calls, key, 1, &calls_dropped))
		count(FAULTS);
	return 0;
}

SEC("distribution") long return_sizes(u64 *ctx)
{
	count(HITS);
	__sync_fetch_and_add(&sizes[cpu() & (SHARDS - 1)][bucket(ctx[4])], 1);
	return 0;
}

struct regs { u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss; };

SEC("entry") long latency_entry(struct regs *ctx)
{
	u64 start = ktime(), frame = ctx->sp;
	long result = update(&inflight, &frame, &start, NOEXIST);
	if (result) {
		count(MISSED);
		if (result == -EEXIST)
			update(&inflight, &frame, &start, 0);
	}
	return 0;
}

SEC("exit") long latency_exit(struct regs *ctx)
{
	char key[16];
	u64 frame = ctx->sp - 8, *found = lookup(&inflight, &frame), start, *there;
	if (!found)
		return 0;
	start = *found;
	delete(&inflight, &frame);
	count(HITS);
	if ((s64)ctx->ax <= 0)
		return 0;
	u64 sample = (ktime() - start) / 1000;
	comm(key, sizeof key);
	there = lookup(&usecs, key);
	if (!there) {
		update(&usecs, key, zeros, NOEXIST);
		there = lookup(&usecs, key);
		if (!there) {
			__sync_fetch_and_add(&usecs_dropped, 1);
			count(FAULTS);
			return 0;
		}
	}
	__sync_fetch_and_add(&there[sample ? 2 + (sample >> 32 ? log2_32(sample >> 32) + 32 : log2_32(sample)) : 1], 1);
	return 0;
}

struct event { u32 id, site, pid; char comm[16], name[32]; u32 gap; u64 count; };

SEC("event") long names(u64 *ctx)
{
	u64 dentry = 0, name = 0;
	long fault;
	count(HITS);
	fault = read_kernel(&dentry, 8, (void *)(ctx[0] + 16));
	fault |= read_kernel(&name, 8, (void *)(dentry + 40));
	struct event *event = reserve(&ring, sizeof *event, 0);
	if (!event) {
		count(LOST);
	} else {
		event->id = event->site = event->gap = 0;
		event->pid = pid_tgid() >> 32;
		comm(event->comm, sizeof event->comm);
		__builtin_memset(event->name, 0, sizeof event->name);
		fault |= read_kernel_str(event->name, sizeof event->name, (void *)name);
		event->count = ctx[2];
		submit(event, 0);
	}
	if (fault < 0)
		count(FAULTS);
	return 0;
}

SEC("filter") long filtered(struct regs *ctx)
{
	char key[16];
	u32 flags = 0;
	long fault = 0;
	count(HITS);
	comm(key, sizeof key);
	if (*(u32 *)key == 0x746163 && ctx->dx > 4096) {
		fault = read_kernel(&flags, 4, (void *)(ctx->di + 32));
		if (flags & 1) {
			comm(key, sizeof key);
			fault |= -add(&calls, key, 1, &calls_dropped);
		}
	}
	if (fault < 0)
		count(FAULTS);
	return 0;
}

SEC("depth") long walk_depth(struct regs *ctx)
{
	u64 dentry = 0, parent, levels = 0;
	long fault;
	count(HITS);
	fault = read_kernel(&dentry, 8, (void *)(ctx->di + 16));
#pragma clang loop unroll(disable)
	for (int i = 0; i < 8; i++) {
		parent = 0;
		fault |= read_kernel(&parent, 8, (void *)(dentry + 24));
		if (dentry == parent)
			break;
		dentry = parent;
		levels++;
	}
	__sync_fetch_and_add(&sizes[cpu() & (SHARDS - 1)][bucket(levels)], 1);
	if (fault < 0)
		count(FAULTS);
	return 0;
}

SEC("between") long time_between(u64 *ctx)
{
	u64 tid, *there, before, time;
	count(HITS);
	tid = (u32)pid_tgid();
	there = lookup(&last, &tid);
	before = there ? *there : 0;
	time = ktime();
	long result = update(&last, &tid, &time, 0);
	if (result < 0)
		__sync_fetch_and_add(&last_dropped, 1);
	if (before) {
		u64 sample = time - before;
		u32 high = sample >> 32;
		u64 number = sample ? 2 + (high ? log2_32(high) + 32 : log2_32(sample)) : 1;
		__sync_fetch_and_add(&sizes[cpu() & (SHARDS - 1)][number], 1);
	}
	if (result < 0)
		count(FAULTS);
	return 0;
}

SEC("prefix") long name_prefix(struct regs *ctx)
{
	char key[16], name[32] = {};
	u64 dentry = 0, text = 0;
	long fault;
	count(HITS);
	fault = read_kernel(&dentry, 8, (void *)(ctx->di + 16));
	fault |= read_kernel(&text, 8, (void *)(dentry + 40));
	fault |= read_kernel_str(name, sizeof name, (void *)text);
	if (name[0] == 'l' && name[1] == 'i' && name[2] == 'b') {
		comm(key, sizeof key);
		fault |= -add(&calls, key, 1, &calls_dropped);
	}
	if (fault < 0)
		count(FAULTS);
	return 0;
}

SEC("remainders") long two_remainders(struct regs *ctx)
{
	u64 sample = ctx->dx % 1000 / 7 + ctx->dx / 4096;
	count(HITS);
	u32 high = sample >> 32;
	u64 number = sample ? 2 + (high ? log2_32(high) + 32 : log2_32(sample)) : 1;
	__sync_fetch_and_add(&sizes[cpu() & (SHARDS - 1)][number], 1);
	return 0;
}
