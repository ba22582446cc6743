#include <cstdlib>
#include <string>
#include <vector>

namespace shop {
enum class Kind : unsigned char { Food = 3, Tool = 200 };
inline namespace v2 {
struct Base {
    int id;
    virtual ~Base() {}
};
}
struct Item : Base {
    Kind kind;
    static int made;
    std::string label;
    struct Part {
        long weight;
    } part;
    int price(const Item &other, int tax) const;
    static Item copy(const Item *from, Part by_value);
};
int Item::made = 0;
__attribute__((noinline)) int Item::price(const Item &other, int tax) const
{
    made += tax;
    return id + other.id + tax;
}
__attribute__((noinline)) Item Item::copy(const Item *from, Part by_value)
{
    Item made_here = *from;
    made_here.part = by_value;
    return made_here;
}
template <typename... Rest> __attribute__((noinline)) int count_all(int first, Rest... rest)
{
    Item::made += first;
    return first + (0 + ... + rest);
}
__attribute__((noinline)) long take(std::string by_reference, Item &&moved)
{
    Item::made++;
    return (long)by_reference.size() + moved.id;
}
}

int main(int argc, char **)
{
    shop::Item one;
    one.id = argc;
    int sum = one.price(one, 3) + shop::count_all(1, 2, 3) + (int)shop::take("text", shop::Item::copy(&one, {4}));
    return sum == 0;
}
