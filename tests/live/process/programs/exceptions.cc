// C++ exceptions through probed frames, destructors, rethrow, forced unwinding by pthread_cancel, coroutines.
#include <coroutine>
#include <cstdio>
#include <cstdlib>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))
static long destroyed, caught, throws, resumed, cleaned;

struct Guard {
    ~Guard() { destroyed++; }
};

extern "C" NOINLINE void thrower(int n)
{
    throws++;
    if (n % 3 == 0)
        throw std::runtime_error(std::string("n") + std::to_string(n));
    throw n;
}

extern "C" NOINLINE int middle(int n)
{
    Guard guard;
    thrower(n);
    return n;
}

extern "C" NOINLINE int outer(int n)
{
    Guard guard;
    try {
        return middle(n);
    } catch (int number) {
        caught++;
        if (number % 2)
            throw;
        return number;
    }
}

struct Generator {
    struct promise_type {
        int value;
        Generator get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
        std::suspend_always initial_suspend() { return {}; }
        std::suspend_always final_suspend() noexcept { return {}; }
        std::suspend_always yield_value(int v)
        {
            value = v;
            return {};
        }
        void return_void() {}
        void unhandled_exception() {}
    };
    std::coroutine_handle<promise_type> handle;
};

NOINLINE Generator numbers(int limit)
{
    for (int i = 0; i < limit; i++)
        co_yield i;
}

extern "C" NOINLINE void clean(void *) { cleaned++; }
extern "C" NOINLINE void sleep_for_ever()
{
    for (;;)
        usleep(1000);
}

extern "C" void *cancelled(void *)
{
    pthread_cleanup_push(clean, nullptr);
    Guard guard;
    sleep_for_ever();
    pthread_cleanup_pop(0);
    return nullptr;
}

int main(int argc, char **argv)
{
    long sum = 0, rounds = argc > 1 ? atol(argv[1]) : 3000;
    for (int n = 0; n < rounds; n++) {
        try {
            sum += outer(n);
        } catch (const std::exception &error) {
            caught++;
            sum += error.what()[1];
        } catch (int number) {
            caught++;
            sum -= number;
        }
    }
    for (int n = 0; n < 300; n++) {
        auto generator = numbers(10);
        while (generator.handle.resume(), !generator.handle.done()) {
            sum += generator.handle.promise().value;
            resumed++;
        }
        generator.handle.destroy();
    }
    for (int n = 0; n < 5; n++) {
        pthread_t id;
        pthread_create(&id, nullptr, cancelled, nullptr);
        usleep(2000);
        pthread_cancel(id);
        pthread_join(id, nullptr);
    }
    printf("sum %ld destroyed %ld caught %ld resumed %ld cleaned %ld\n", sum, destroyed, caught, resumed, cleaned);
    printf("count thrower %ld\ncount middle %ld\ncount outer %ld\ncount clean 5\ncount cancelled 5\n", throws, rounds, rounds);
    return 0;
}
