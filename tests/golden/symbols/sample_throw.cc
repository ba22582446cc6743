// A program with a landing pad, linked at fixed addresses and without a C library's start files.
int unwound;
struct Guard { ~Guard() { unwound += 1; } };
extern "C" __attribute__((weak)) int may_throw(int x) { return x + 1; }
extern "C" int guarded(int x) { Guard guard; return may_throw(x) + 1; }
extern "C" void __gxx_personality_v0() {}
extern "C" void _Unwind_Resume() {}
extern "C" void _start() { guarded(1); for (;;) {} }
