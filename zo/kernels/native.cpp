// The operations of eager.py on CPU tensors: noise made tile by tile in cache, sums in registers, one write.
//
// No torch headers: native.py packs a Head and a Plan and passes raw pointers.

#include "native_noise.h"

#include <type_traits>
#include <vector>

enum Dtype { FLOAT32, BFLOAT16, FLOAT16 };
enum Update { NEAREST, STOCHASTIC, MASTER };

struct Head {
    void* w;              // weights, row-major
    int16_t* low;         // what rounding dropped, when update is MASTER
    const int64_t* rows;  // null, or the n rows wanted of a [height, width] matrix
    int64_t n, width, height;
    uint64_t id, rounding_key;
    int32_t dtype, stream, update, threads;
    float decay;
    int32_t decays;  // 1: decay · w is taken off the sum
    void* outs[1];   // one result a list of terms
};

struct Term {
    int32_t key;  // index into the plan's keys
    float scale;
};

struct Plan {
    int32_t keys, lists;
    const uint64_t* key;
    const int32_t* ends;  // list l is terms [ends[l], ends[l + 1])
    const Term* terms;
};

// ---- a tile: the noise of every key, then every list's sum and what is done with it

template <int STREAM> struct Tile;

template <> struct Tile<SIGNS> {
    static constexpr int64_t size = 4096;              // elements, so 512 bytes of bits a key
    static constexpr int64_t bytes = size / 8 + 256;   // and room for whole sets of blocks
    static const char* fill(const Schedule& s, uint64_t id, int64_t e, int64_t n, char* out) {
        int64_t shift = e % 128;
        words(s, id, SIGNS, e / 128, (shift + n + 127) / 128, out);
        out += shift / 16 * 2;
        if (shift % 16)  // a start within sixteen elements: move the bits down
            for (int64_t i = 0; i < (n + 15) / 16; i++) {
                uint32_t pair;
                memcpy(&pair, out + 2 * i, 4);
                pair >>= shift % 16;
                memcpy(out + 2 * i, &pair, 2);
            }
        return out;
    }
    static inline F scaled(const char* z, int64_t i, float scale) {
        uint16_t bits;
        memcpy(&bits, z + i / 8, 2);
        return signed_by(bits, splat(scale));
    }
};

template <> struct Tile<GAUSSIANS> {
    static constexpr int64_t size = 512;
    static constexpr int64_t bytes = (size + 256) * 4;
    static const char* fill(const Schedule& s, uint64_t id, int64_t e, int64_t n, char* out) {
        float* z = (float*)out;
        if (s.stream == SHORT_GAUSSIANS) {
            char half[2 * (size + 128)];
            const int64_t count = e % 8 + n;
            words(s, id, SHORT_GAUSSIANS, e / 8, (count + 7) / 8, half);
            for (int64_t i = 0; i < count; i += 32) store_short(half + 2 * i, z + i);
            return out + e % 8 * 4;
        }
        int64_t block = e / 4, left = e % 4 + n;
        for (; left > 32 * (SIDE - 1); left -= 32 * SIDE, block += 8 * SIDE, z += 32 * SIDE)
            store_normals<SIDE>(s, id, block, z);
        for (; left > 0; left -= 32, block += 8, z += 32) store_normals<1>(s, id, block, z);
        return out + e % 4 * 4;
    }
    static inline F scaled(const char* z, int64_t i, float scale) { return widen((const float*)z + i) * scale; }
};

// ---- how a weight takes its new value: rounding.py's three updates

template <int UPDATE, class T> struct Store;

template <class T> struct Store<NEAREST, T> {
    static F old(const T* w, const int16_t*) { return widen(w); }
    static void put(T* w, int16_t*, const uint16_t*, F x) { narrow(w, x); }
};

static inline I finite(F x) { return ((I)x & 0x7F800000) != 0x7F800000; }
static inline F clamp(F x, float limit) {
    x = x > limit ? splat(limit) : x;
    return x < -limit ? splat(-limit) : x;
}

template <> struct Store<STOCHASTIC, Bf16> {
    static F old(const Bf16* w, const int16_t*) { return widen(w); }
    static void put(Bf16* w, int16_t*, const uint16_t* half, F x) {
        U up = ((U)x + widen16(half)) & 0xFFFF0000u;
        narrow(w, finite(x) ? clamp((F)up, (float)0x1.FEp127) : x);
    }
};

template <> struct Store<STOCHASTIC, Fp16> {
    static F old(const Fp16* w, const int16_t*) { return widen(w); }
    static void put(Fp16* w, int16_t*, const uint16_t* half, F x) {
        U bits = widen16(half) >> 3;
        F normal = clamp((F)(((U)x + bits) & 0xFFFFE000u), 65504.0f);
        F size = (F)((U)x & 0x7FFFFFFFu);
        F small = size < 0x1p-14f ? size * 0x1p24f : F{};  // below 1024 here, so the conversion is exact
        F whole = __builtin_convertvector(__builtin_convertvector(small, I), F);
        F up = (small - whole) * 8192.0f + __builtin_convertvector((I)bits, F) >= 8192.0f ? splat(1.0f) : F{};
        F subnormal = (F)((U)((whole + up) * 0x1p-24f) | ((U)x & 0x80000000u));
        narrow(w, finite(x) ? (size < 0x1p-14f ? subnormal : normal) : x);
    }
};

template <> struct Store<MASTER, Bf16> {
    static F old(const Bf16* w, const int16_t* low) {
        typedef int16_t L __attribute__((vector_size(32)));
        return (F)((widen16(w) << 16) + (U)__builtin_convertvector((L)halves_at(low), I));
    }
    static void put(Bf16* w, int16_t* low, const uint16_t*, F x) {
        U bits = x == x ? (U)x : U{} + 0x7FC00000u;  // of other NaNs the carry would make an infinity or a zero
        U high = (bits + 0x8000u) >> 16;
        H h = __builtin_convertvector(high, H), l = __builtin_convertvector(bits - (high << 16), H);
        memcpy(w, &h, 32);
        memcpy(low, &l, 32);
    }
};

template <> struct Store<MASTER, Fp16> {
    // The exponent field of a number of float16 as fp32 has it; below 2^-14 float16's spacing stays the same.
    static U exponent(F wide) {
        U field = ((U)wide >> 23) & 0xFFu;
        return field < 113u ? U{} + 113u : field;
    }
    static F old(const Fp16* w, const int16_t* low) {
        typedef int16_t L __attribute__((vector_size(32)));
        F wide = widen(w), units = __builtin_convertvector(__builtin_convertvector((L)halves_at(low), I), F);
        return wide + units * (F)((exponent(wide) - 25u) << 23);  // both exact, as the pair was split from fp32
    }
    static void put(Fp16* w, int16_t* low, const uint16_t*, F x) {
        Fp16 half[16];
        narrow(half, x);
        F wide = widen(half), units = (x - wide) * (F)((279u - exponent(wide)) << 23);
        const F magic = splat(0x1.8p23f);  // adding it rounds to whole numbers, ties to even
        units = finite(wide) ? (units + magic) - magic : F{};
        H l = __builtin_convertvector(__builtin_convertvector(units, I), H);
        memcpy(w, half, 32);
        memcpy(low, &l, 32);
    }
};

// ---- the loops

template <int STREAM> struct Workspace {
    std::vector<char> room, halves;
    std::vector<const char*> noise;
    Workspace(const Plan& plan, bool rounds)
        : room(plan.keys * Tile<STREAM>::bytes), halves(rounds ? Tile<STREAM>::size * 2 + 256 : 0), noise(plan.keys) {}
};

// The terms of one list over one tile. Copies of what the loops need, because every store might, for all
// the compiler knows, change the originals.
template <int STREAM> struct Sum {
    const Term *first, *end;
    const char* const* noise;
    const char* z = nullptr;  // of the first term
    float scale = 0.0f;
    Sum(const Plan& plan, int list, const std::vector<const char*>& made)
        : first(plan.terms + plan.ends[list]), end(plan.terms + plan.ends[list + 1]), noise(made.data()) {
        if (first < end) z = noise[first->key], scale = first->scale;
    }
    template <int V> inline void at(int64_t i, F (&total)[V]) const {
        for (int v = 0; v < V; v++) total[v] = z ? Tile<STREAM>::scaled(z, i + 16 * v, scale) : F{};
        for (const Term* term = first + 1; term < end; term++)
            for (int v = 0; v < V; v++)
                total[v] = total[v] + Tile<STREAM>::scaled(noise[term->key], i + 16 * v, term->scale);
    }
};

// How lists of terms become results: each list one (a sum), or all of them one (moments.py: a step a list).
struct Each {
    static int results(const Plan& plan) { return plan.lists; }
    template <int STREAM> struct Total : Sum<STREAM> {
        Total(const Plan& plan, const Each&, int list, const std::vector<const char*>& made, int64_t, int64_t)
            : Sum<STREAM>(plan, list, made) {}
    };
};

// Each, with what becomes of every sum by a number of its entry: entries.py.
enum How { UNDER, UNDER_PRODUCT, WITHIN, PLUS };

struct Entries {
    int32_t how, dtype;   // dtype: of the numbers
    const void* numbers;  // H, R, the weights or m
    const float* columns; // C
    int64_t width;        // of C
    float most;
    float scale[1];       // of each list
};

struct Entrywise {
    const Entries& entries;

    static int results(const Plan& plan) { return plan.lists; }
    template <int STREAM> struct Total {
        const Sum<STREAM> sum;
        const int how;
        const float most, scale;
        const int64_t n;
        const float* x;                        // numbers of the tile's n elements
        float made[Tile<STREAM>::size + 64];  // the place of those that are no fp32 tensor

        Total(const Plan& plan, const Entrywise& rule, int list, const std::vector<const char*>& noise, int64_t e, int64_t n)
            : sum(plan, list, noise), how(rule.entries.how), most(rule.entries.most),
              scale(how == PLUS ? rule.entries.scale[list] : 0.0f), n(n), x(made) {
            const Entries& of = rule.entries;
            if (how == UNDER_PRODUCT) {
                const float* R = (const float*)of.numbers;
                int64_t i = e / of.width, j = e % of.width;
                for (int64_t done = 0, m; done < n; done += m, i++, j = 0) {
                    m = of.width - j < n - done ? of.width - j : n - done;
                    for (int64_t k = 0; k < m; k++) made[done + k] = R[i] * of.columns[j + k];
                }
            } else if (of.dtype == FLOAT32) {
                x = (const float*)of.numbers + e;
            } else if (of.dtype == BFLOAT16) {
                copy((const Bf16*)of.numbers + e);
            } else {
                copy((const Fp16*)of.numbers + e);
            }
        }
        template <class T> void copy(const T* from) {
            int64_t i = 0;
            for (; i + 16 <= n; i += 16) narrow(made + i, widen(from + i));
            T rest[16] = {};
            memcpy(rest, from + i, (n - i) * sizeof(T));
            narrow(made + i, widen(rest));
        }
        template <int V> inline void at(int64_t i, F (&total)[V]) const {
            float rest[16 * V] = {};
            const float* here = x + i;
            if (V == 1 && n - i < 16) memcpy(rest, here, (n - i) * 4), here = rest;
            sum.at(i, total);
            for (int v = 0; v < V; v++) {
                F number = widen(here + 16 * v);
                if (how == WITHIN) {
                    I over = (I)splat(most) - ((I)number & 0x7FFFFFFF);  // negative where |w| > most
                    total[v] = (F)((U)total[v] & ((U) ~(over >> 31) | 0x80000000u));
                } else {
                    total[v] = how == PLUS ? total[v] + number * scale : total[v] / root(number);
                }
            }
        }
    };
};

struct Moments {
    float scale, eps;
    int32_t inside;
    const char* pairs;  // a and b of each step

    static int results(const Plan&) { return 1; }
    template <int STREAM> struct Total {
        const Plan plan;
        const Moments& rule;
        const std::vector<const char*>& made;
        Total(const Plan& p, const Moments& r, int, const std::vector<const char*>& z, int64_t, int64_t)
            : plan(p), rule(r), made(z) {}
        template <int V> inline void at(int64_t i, F (&total)[V]) const {
            F m[V], v[V], g[V];
            for (int k = 0; k < plan.lists; k++) {
                float weight[2];
                memcpy(weight, rule.pairs + 8 * k, 8);
                Sum<STREAM>(plan, k, made).at(i, g);
                for (int j = 0; j < V; j++) {
                    F first = g[j] * weight[0], second = g[j] * g[j] * weight[1];
                    m[j] = k ? m[j] + first : first;
                    v[j] = k ? v[j] + second : second;
                }
            }
            for (int j = 0; j < V; j++) {
                F divisor = rule.inside ? root(v[j] + rule.eps) : root(v[j]) + rule.eps;
                divisor = divisor < 0x1p-126f ? splat(0x1p-126f) : divisor;
                total[j] = m[j] / divisor * rule.scale;
            }
        }
    };
};

// The step is what a program makes of the noise and the state: formulas.py.
enum What { ADD, SUB, MUL, DIV, ROOT, ABS, SIGN, LEAST, MOST, INVERSE };

struct Op {
    int32_t what, to, a, b;  // b -1: c in its place
    float c;
};

struct Formula {
    static constexpr int registers = 40;
    static constexpr int64_t chunk = 256;  // elements, so that all registers stay in the first cache

    int32_t ops, states, step;
    const int32_t* result;  // register of each state's new value
    float* const* state;
    const Op* op;

    static int results(const Plan&) { return 1; }

    template <class BINARY> static void each(const float* a, const float* b, float c, float* to, int64_t n, BINARY f) {
        if (b)
            for (int64_t i = 0; i < n; i++) to[i] = f(a[i], b[i]);
        else
            for (int64_t i = 0; i < n; i++) to[i] = f(a[i], c);
    }
    static void work(int what, const float* a, const float* b, float c, float* to, int64_t n) {
        switch (what) {
            case ADD: each(a, b, c, to, n, [](float x, float y) { return x + y; }); break;
            case SUB: each(a, b, c, to, n, [](float x, float y) { return x - y; }); break;
            case MUL: each(a, b, c, to, n, [](float x, float y) { return x * y; }); break;
            case DIV: each(a, b, c, to, n, [](float x, float y) { return x / y; }); break;
            case ROOT: for (int64_t i = 0; i < n; i++) to[i] = sqrtf(a[i]); break;
            case ABS: for (int64_t i = 0; i < n; i++) to[i] = fabsf(a[i]); break;
            case INVERSE: for (int64_t i = 0; i < n; i++) to[i] = 1.0f / a[i]; break;
            case SIGN: for (int64_t i = 0; i < n; i++) to[i] = (float)(a[i] > 0) - (float)(a[i] < 0); break;
            case LEAST: each(a, b, c, to, n, [](float x, float y) { return x < y ? y : x; }); break;
            case MOST: each(a, b, c, to, n, [](float x, float y) { return x > y ? y : x; }); break;
        }
    }

    template <int STREAM> struct Total {
        float made[Tile<STREAM>::size + 64];  // the step of the tile's n elements

        Total(const Plan& plan, const Formula& rule, int, const std::vector<const char*>& noise, int64_t e, int64_t n) {
            alignas(64) float room[registers][chunk];
            const float* reg[registers];
            for (int k = 0; k < registers; k++) reg[k] = room[k];
            for (int64_t done = 0; done < n; done += chunk) {
                const int64_t m = n - done < chunk ? n - done : chunk;
                for (int k = 0; k < plan.keys; k++) {
                    if constexpr (STREAM == GAUSSIANS) reg[k] = (const float*)noise[k] + done;
                    else for (int64_t i = 0; i < m; i += 16) narrow(room[k] + i, Tile<STREAM>::scaled(noise[k], done + i, 1.0f));
                }
                for (int s = 0; s < rule.states; s++) reg[plan.keys + s] = rule.state[s] + e + done;
                for (const Op* op = rule.op; op < rule.op + rule.ops; op++)
                    work(op->what, reg[op->a], op->b < 0 ? nullptr : reg[op->b], op->c, room[op->to], m);
                // All of what is read before any of it is written: a state may become another one, the step an old one.
                memcpy(made + done, reg[rule.step], m * 4);
                const float* next[registers];
                for (int s = 0; s < rule.states; s++) {
                    const int from = rule.result[s], own = plan.keys + s;
                    const bool another = from >= plan.keys && from < plan.keys + rule.states && from != own;
                    next[s] = another ? (const float*)memcpy(room[own], reg[from], m * 4) : reg[from];
                }
                for (int s = 0; s < rule.states; s++)
                    if (rule.result[s] != plan.keys + s) memcpy(rule.state[s] + e + done, next[s], m * 4);
            }
        }
        template <int V> inline void at(int64_t i, F (&total)[V]) const {
            for (int v = 0; v < V; v++) total[v] = widen(made + i + 16 * v);
        }
    };
};

// V vectors of weights: w takes the place its new value has in `out`.
template <int UPDATE, class T, int V>
static inline void finish(bool decays, float decay, const T* w, T* out, int16_t* low, const uint16_t* half, F (&total)[V]) {
    for (int v = 0; v < V; v++) {
        F old = Store<UPDATE, T>::old(w + 16 * v, low + 16 * v);
        total[v] = old + (decays ? total[v] - old * decay : total[v]);
    }
    if constexpr (UPDATE == NEAREST && V % 2 == 0 && std::is_same<T, Bf16>::value)
        for (int v = 0; v < V; v += 2) narrow_pair(out + 16 * v, total[v], total[v + 1]);
    else
        for (int v = 0; v < V; v++) Store<UPDATE, T>::put(out + 16 * v, low + 16 * v, half + 16 * v, total[v]);
}

// n elements from number e on: weights at w, results of list l at outs[l] + place.
template <int STREAM, int UPDATE, class T, class KIND>
static void range(const Head& head, const Plan& plan, const KIND& kind, const std::vector<Schedule>& keys, Workspace<STREAM>& space,
                  int64_t e, const T* w, int64_t place, int64_t n) {
    for (int64_t done = 0; done < n; done += Tile<STREAM>::size) {
        int64_t m = n - done < Tile<STREAM>::size ? n - done : Tile<STREAM>::size;
        for (int k = 0; k < plan.keys; k++)
            space.noise[k] = Tile<STREAM>::fill(keys[k], head.id, e + done, m, &space.room[k * Tile<STREAM>::bytes]);
        const uint16_t* half = (const uint16_t*)space.halves.data() + (e + done) % 8;
        if (UPDATE == STOCHASTIC)
            words(keys.back(), head.id, ROUNDING, (e + done) / 8, ((e + done) % 8 + m + 7) / 8, space.halves.data());
        for (int l = 0; l < KIND::results(plan); l++) {
            T* out = (T*)head.outs[l] + place + done;
            int16_t* low = UPDATE == MASTER ? head.low + place + done : nullptr;
            const typename KIND::template Total<STREAM> sum(plan, kind, l, space.noise, e + done, m);
            const bool decays = head.decays;
            const float decay = head.decay;
            int64_t i = 0;
            for (; i + 64 <= m; i += 64) {
                F total[4];
                sum.at(i, total);
                finish<UPDATE, T>(decays, decay, w + done + i, out + i, low + i, half + i, total);
            }
            for (; i < m; i += 16) {  // what is left goes through copies of full width
                F total[1];
                T copy[16] = {};
                int16_t lower[16] = {};
                int64_t left = m - i < 16 ? m - i : 16;
                memcpy(copy, w + done + i, left * sizeof(T));
                if (UPDATE == MASTER) memcpy(lower, low + i, left * 2);
                sum.at(i, total);
                finish<UPDATE, T>(decays, decay, copy, copy, lower, half + i, total);
                memcpy(out + i, copy, left * sizeof(T));
                if (UPDATE == MASTER) memcpy(low + i, lower, left * 2);
            }
        }
    }
}

template <int STREAM, int UPDATE, class T, class KIND>
static void run(const Head& head, const Plan& plan, const KIND& kind) {
    std::vector<Schedule> keys;
    for (int k = 0; k < plan.keys; k++) keys.push_back(schedule(plan.key[k], head.stream));
    if (UPDATE == STOCHASTIC) keys.push_back(schedule(head.rounding_key, ROUNDING));
    const int64_t piece = 1 << 15;  // elements a thread takes at a time, a multiple of every tile
    const T* w = (const T*)head.w;
    int64_t pieces = head.rows ? head.n : (head.n + piece - 1) / piece;
#ifdef _OPENMP
#pragma omp parallel num_threads(head.threads) if (head.threads > 1)
#endif
    {
        Workspace<STREAM> space(plan, UPDATE == STOCHASTIC);
#ifdef _OPENMP
#pragma omp for schedule(static)
#endif
        for (int64_t p = 0; p < pieces; p++) {
            if (head.rows) {
                int64_t start = head.rows[p] * head.width;
                range<STREAM, UPDATE, T>(head, plan, kind, keys, space, start, w + start, p * head.width, head.width);
            } else {
                int64_t start = p * piece, n = head.n - start < piece ? head.n - start : piece;
                range<STREAM, UPDATE, T>(head, plan, kind, keys, space, start, w + start, start, n);
            }
        }
    }
}

template <int STREAM, class KIND> static int dispatch(const Head& head, const Plan& plan, const KIND& kind) {
    switch (head.dtype * 3 + head.update) {
        case FLOAT32 * 3 + NEAREST: run<STREAM, NEAREST, float>(head, plan, kind); return 0;
        case BFLOAT16 * 3 + NEAREST: run<STREAM, NEAREST, Bf16>(head, plan, kind); return 0;
        case BFLOAT16 * 3 + STOCHASTIC: run<STREAM, STOCHASTIC, Bf16>(head, plan, kind); return 0;
        case BFLOAT16 * 3 + MASTER: run<STREAM, MASTER, Bf16>(head, plan, kind); return 0;
        case FLOAT16 * 3 + NEAREST: run<STREAM, NEAREST, Fp16>(head, plan, kind); return 0;
        case FLOAT16 * 3 + STOCHASTIC: run<STREAM, STOCHASTIC, Fp16>(head, plan, kind); return 0;
        case FLOAT16 * 3 + MASTER: run<STREAM, MASTER, Fp16>(head, plan, kind); return 0;
    }
    return 2;
}

// packed: int32 keys and lists, uint64 key[keys], int32 ends[lists + 1], terms.
static Plan unpack(const char* packed) {
    Plan plan;
    memcpy(&plan.keys, packed, 4);
    memcpy(&plan.lists, packed + 4, 4);
    plan.key = (const uint64_t*)(packed + 8);
    plan.ends = (const int32_t*)(plan.key + plan.keys);
    plan.terms = (const Term*)(plan.ends + plan.lists + 1);
    return plan;
}

template <class KIND> static int apply(const Head& head, const Plan& plan, const KIND& kind) {
    if (head.rows)
        for (int64_t i = 0; i < head.n; i++)
            if (head.rows[i] < 0 || head.rows[i] >= head.height) return 1;
    return head.stream == SIGNS ? dispatch<SIGNS>(head, plan, kind) : dispatch<GAUSSIANS>(head, plan, kind);
}

// 0; 1 when a row number is outside the matrix; 2 when the combination does not exist.
extern "C" int zo_apply(const Head* head, const char* packed) { return apply(*head, unpack(packed), Each()); }

// The same, but for what becomes of every sum.
extern "C" int zo_entries(const Head* head, const char* packed, const Entries* entries) {
    return apply(*head, unpack(packed), Entrywise{*entries});
}

// All weights; packed has a list of terms a step, oldest first. ratio: scale, eps, inside, a and b of each step.
extern "C" int zo_moments(const Head* head, const char* packed, const char* ratio) {
    const Plan plan = unpack(packed);
    Moments rule;
    memcpy(&rule, ratio, 12);
    rule.pairs = ratio + 12;
    return head->stream == SIGNS ? dispatch<SIGNS>(*head, plan, rule) : dispatch<GAUSSIANS>(*head, plan, rule);
}

// All weights, flattened; packed has a key a list. formula: int32 ops, states, step, 0, result[states], padded to eight
// bytes, float* state[states], ops.
extern "C" int zo_formula(const Head* head, const char* packed, const char* formula) {
    const Plan plan = unpack(packed);
    int32_t counts[4];
    memcpy(counts, formula, 16);
    const int32_t* result = (const int32_t*)(formula + 16);
    float* const* state = (float* const*)(result + (counts[1] + 1) / 2 * 2);
    const Formula rule = {counts[0], counts[1], counts[2], result, state, (const Op*)(state + counts[1])};
    return head->stream == SIGNS ? dispatch<SIGNS>(*head, plan, rule) : dispatch<GAUSSIANS>(*head, plan, rule);
}

template <int STREAM> static void noise(const Schedule& s, uint64_t id, int64_t start, int64_t n, float* out) {
    std::vector<char> room(Tile<STREAM>::bytes);
    for (int64_t done = 0; done < n; done += Tile<STREAM>::size) {
        int64_t m = n - done < Tile<STREAM>::size ? n - done : Tile<STREAM>::size;
        const char* z = Tile<STREAM>::fill(s, id, start + done, m, room.data());
        for (int64_t i = 0; i < m; i += 16) {
            float values[16];
            narrow(values, Tile<STREAM>::scaled(z, i, 1.0f));
            memcpy(out + done + i, values, (m - i < 16 ? m - i : 16) * 4);
        }
    }
}

// n fp32 numbers of one key from element `start` on.
extern "C" void zo_noise(int stream, uint64_t key, uint64_t id, int64_t start, int64_t n, float* out) {
    if (stream == SIGNS) noise<SIGNS>(schedule(key, stream), id, start, n, out);
    else noise<GAUSSIANS>(schedule(key, stream), id, start, n, out);
}
