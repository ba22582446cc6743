// SPDX-License-Identifier: MIT
/* A module that comes and goes; what is written to its parameter `call` is given to a function that can be probed. */
#include <linux/module.h>
#include <linux/moduleparam.h>

noinline int comes_work(int number);

noinline int comes_work(int number)
{
	asm volatile("");
	return number + 1;
}

static int set_call(const char *text, const struct kernel_param *parameter)
{
	return comes_work(7) == 8 ? 0 : -EINVAL;
}

static const struct kernel_param_ops operations = { .set = set_call };
module_param_cb(call, &operations, NULL, 0200);

static int __init comes_init(void)
{
	return 0;
}

static void __exit comes_exit(void)
{
}

module_init(comes_init);
module_exit(comes_exit);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("A function that comes and goes");
