/* Every kind of BTF record that a kernel may hold and vmlinux-6.18.btf doesn't. Made into kinds.btf by
 *   clang -target bpf -g -O1 -c kinds.c && llvm-objcopy --dump-section .BTF=kinds.btf kinds.o
 */
#define __user __attribute__((btf_type_tag("user")))
#define __tag(x) __attribute__((btf_decl_tag(x)))

typedef unsigned long long u64;
typedef struct { int counter; } atomic_t;
struct later;
union only_declared;

enum small { ZERO, TWELVE = 12 };

struct bits {
	unsigned int low : 3;
	int middle : 7;
	u64 high : 40;
	union {
		struct { short deep; char deeper; };
		long other;
	};
	atomic_t count;
	int flexible[];
};

struct holder {
	struct later *later;
	union only_declared *never;
	const char __user *text;
	volatile int state;
	int (*call)(struct holder *, void (*inner)(int (*innermost)(char)));
	int (*(*table)[4])(void);
	unsigned char matrix[3][5];
	_Bool yes;
	__int128 huge;
	double real;
	struct bits *restrict bits;
	enum small small;
	char *const fixed;
};

struct later { struct holder *back; int end; };
volatile int counter __tag("counts");
struct holder holder;
struct bits bits;
struct later later;

__attribute__((noinline)) int tagged(struct holder *holder __tag("the holder"), const char __user *buffer, int many)
{
	counter += many;
	return holder->later ? holder->later->end + buffer[0] : 0;
}

int caller(struct holder *holder) { return tagged(holder, (const char __user *)holder->text, 1); }
