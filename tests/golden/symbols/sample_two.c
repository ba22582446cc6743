/* A second file with a static function of the same name. */
__attribute__((noinline)) static int helper(int x) { return x * 5; }
__attribute__((visibility("default"))) int sample_two(int a) { return helper(a) + 1; }
