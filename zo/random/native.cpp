// The operations of eager.py on CPU tensors: noise made tile by tile in cache, sums in registers, one write.
//
// Specification and formulas are philox.py's, in its order of operations; compile with -ffp-contract=off,
// because a fused multiply-add rounds differently. Vectors are GCC's (16 floats, 8 words of 64 bits), which
// become AVX-512, AVX2, NEON or scalar code; by hand is only what compilers do badly (macro ZO_PORTABLE
// leaves that out). No torch headers: native.py packs a Head and a Plan and passes raw pointers.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#if !defined(ZO_PORTABLE) && defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
#define ZO_AVX512
#elif !defined(ZO_PORTABLE) && defined(__AVX2__) && defined(__F16C__)
#define ZO_AVX2
#endif
#if defined(ZO_AVX512) || defined(ZO_AVX2)
#include <immintrin.h>
#endif

typedef float F __attribute__((vector_size(64)));
typedef uint32_t U __attribute__((vector_size(64)));
typedef int32_t I __attribute__((vector_size(64)));
typedef uint64_t W __attribute__((vector_size(64)));
typedef uint16_t H __attribute__((vector_size(32)));

enum Dtype { FLOAT32, BFLOAT16, FLOAT16 };
enum Stream { SIGNS, GAUSSIANS, ROUNDING };
enum Update { NEAREST, STOCHASTIC, MASTER };

struct Head {
    void* w;              // weights, row-major
    int16_t* low;         // low halves, when update is MASTER
    const int64_t* rows;  // null, or the n rows wanted of a [height, width] matrix
    int64_t n, width, height;
    uint64_t id, rounding_key;
    int32_t dtype, stream, update, threads;
    float keep;
    int32_t decays;  // 1: w is multiplied by keep
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

// ---- primitives

static inline F splat(float x) { return x - F{}; }
static inline W low32(W a) { return a & 0xFFFFFFFFull; }

static inline W multiply32(W a, uint64_t m) {  // 64-bit products of the low halves
#if defined(ZO_AVX512)
    return (W)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(m));
#elif defined(ZO_AVX2)
    __m256i half[2];
    memcpy(half, &a, 64);
    for (auto& h : half) h = _mm256_mul_epu32(h, _mm256_set1_epi64x(m));
    memcpy(&a, half, 64);
    return a;
#else
    return low32(a) * m;
#endif
}

static inline F root(F x) {
#if defined(ZO_AVX512)
    return (F)_mm512_sqrt_ps((__m512)x);
#else
    for (int i = 0; i < 16; i++) x[i] = sqrtf(x[i]);
    return x;
#endif
}

static inline F signed_by(uint16_t bits, F x) {  // -x where the bit is set
#if defined(ZO_AVX512)
    return (F)_mm512_mask_blend_ps(bits, (__m512)x, (__m512)-x);
#else
    const U lane = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
    U set = (U)(((bits + U{}) & lane) != 0u);
    return (F)((U)x ^ (set & 0x80000000u));
#endif
}

static inline F widen(const float* p) { F x; memcpy(&x, p, 64); return x; }
static inline void narrow(float* p, F x) { memcpy(p, &x, 64); }

struct Bf16 { uint16_t bits; };
struct Fp16 { uint16_t bits; };

static inline H halves_at(const void* p) { H h; memcpy(&h, p, 32); return h; }
static inline F widen(const Bf16* p) { return (F)(__builtin_convertvector(halves_at(p), U) << 16); }
static inline void narrow(Bf16* p, F x) {
    U u = (U)x;
    U even = (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16;
    H h = __builtin_convertvector((x == x) ? even : 0x7FC0u + U{}, H);
    memcpy(p, &h, 32);
}

static inline F widen(const Fp16* p) {
    F x;
#if defined(ZO_AVX512)
    x = (F)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
#elif defined(ZO_AVX2)
    for (int i = 0; i < 2; i++) {
        __m256 h = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p + i));
        memcpy((char*)&x + 32 * i, &h, 32);
    }
#else
    U h = __builtin_convertvector(halves_at(p), U), size = (h & 0x7FFFu) << 13;
    U special = (U)((h & 0x7C00u) == 0x7C00u) & 0x7F800000u;
    x = (F)((U)((F)size * 0x1p112f) | special | (h & 0x8000u) << 16);
#endif
    return x;
}
static inline void narrow(Fp16* p, F x) {
#if defined(ZO_AVX512)
    _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(ZO_AVX2)
    for (int i = 0; i < 2; i++) {
        __m256 h;
        memcpy(&h, (char*)&x + 32 * i, 32);
        _mm_storeu_si128((__m128i*)p + i, _mm256_cvtps_ph(h, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
#else
    U u = (U)x & 0x7FFFFFFFu;
    U normal = ((u + 0xFFFu + ((u >> 13) & 1u)) >> 13) - (112u << 10);
    U small = (U)((F)u + 0.5f) - 0x3F000000u;  // the sum's last place is 2^-24, half's smallest number
    U h = u < 0x38800000u ? small : u < 0x47800000u ? normal : u > 0x7F800000u ? 0x7E00u + U{} : 0x7C00u + U{};
    H packed = __builtin_convertvector(h | ((U)x >> 16 & 0x8000u), H);
    memcpy(p, &packed, 32);
#endif
}

// ---- the generator: S sets of eight blocks, one word a 64-bit lane; what is in the high halves is ignored

struct Schedule { uint64_t k[10][2]; };

static Schedule schedule(uint64_t key) {
    Schedule s;
    for (uint32_t r = 0; r < 10; r++) {
        s.k[r][0] = (uint32_t)((uint32_t)key + r * 0x9E3779B9u);
        s.k[r][1] = (uint32_t)((uint32_t)(key >> 32) + r * 0xBB67AE85u);
    }
    return s;
}

template <int S>
static inline void philox(const Schedule& s, uint64_t id, uint64_t stream, int64_t block, W (&c)[S][4]) {
    for (int i = 0; i < S; i++) {
        c[i][0] = (uint64_t)(block + 8 * i) + W{0, 1, 2, 3, 4, 5, 6, 7};
        c[i][1] = (id & 0xFFFFFFFF) + W{};
        c[i][2] = (id >> 32) + W{};
        c[i][3] = stream + W{};
    }
#pragma GCC unroll 10
    for (int r = 0; r < 10; r++)
#pragma GCC unroll 4
        for (int i = 0; i < S; i++) {
            W p0 = multiply32(c[i][0], 0xD2511F53), p1 = multiply32(c[i][2], 0xCD9E8D57);
            c[i][0] = (p1 >> 32) ^ c[i][1] ^ s.k[r][0];
            c[i][2] = (p0 >> 32) ^ c[i][3] ^ s.k[r][1];
            c[i][1] = p1;
            c[i][3] = p0;
        }
}

template <int S>
static inline void store_words(const Schedule& s, uint64_t id, uint64_t stream, int64_t block, char* out) {
    W c[S][4];
    philox<S>(s, id, stream, block, c);
    for (int i = 0; i < S; i++) {
        W a = low32(c[i][0]) | (c[i][1] << 32), b = low32(c[i][2]) | (c[i][3] << 32);
        W even = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
        W odd = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
        memcpy(out + 128 * i, &even, 64);
        memcpy(out + 128 * i + 64, &odd, 64);
    }
}

// Words of `count` blocks in the order of their elements; up to seven blocks more are written.
static void words(const Schedule& s, uint64_t id, uint64_t stream, int64_t block, int64_t count, char* out) {
    for (; count > 24; count -= 32, block += 32, out += 512) store_words<4>(s, id, stream, block, out);
    for (; count > 0; count -= 8, block += 8, out += 128) store_words<1>(s, id, stream, block, out);
}

static inline F logarithm(F u) {
    I pattern = (I)u;
    F mantissa = (F)((pattern & 0x7FFFFF) | 0x3F000000);
    I low = mantissa < 0.70710678f;
    F e = __builtin_convertvector((pattern >> 23) - 126 + low, F);
    F m = (low ? mantissa + mantissa : mantissa) - 1.0f;
    F z = m * m;
    F y = m * 7.0376836292e-2f + -1.1514610310e-1f;
    y = y * m + 1.1676998740e-1f;
    y = y * m + -1.2420140846e-1f;
    y = y * m + 1.4249322787e-1f;
    y = y * m + -1.6668057665e-1f;
    y = y * m + 2.0000714765e-1f;
    y = y * m + -2.4999993993e-1f;
    y = y * m + 3.3333331174e-1f;
    y = y * m * z + e * -2.12194440e-4f - 0.5f * z;
    return (m + y) + e * 0.693359375f;
}

// Thirty-two normals of eight blocks; `first` and `second` hold words (0, 2) and (1, 3) of each.
static inline void box_muller(U first, U second, float* out) {
    F u = __builtin_convertvector((I)(first >> 8) + 1, F) * 0x1p-24f;
    F radius = root(-2.0f * logarithm(u));
    F x = __builtin_convertvector((I)((second >> 6) & 0xFFFFFFu) - (1 << 23), F) + 0.5f;
    x = x * (float)(3.141592653589793 / 2 * 0x1p-24);
    F z = x * x;
    F sine = ((z * -1.9515295891e-4f + 8.3321608736e-3f) * z + -1.6666654611e-1f) * z * x + x;
    F cosine = (z * 2.443315711809948e-5f + -1.388731625493765e-3f) * z + 4.166664568298827e-2f;
    cosine = cosine * (z * z) - 0.5f * z + 1.0f;
    auto odd = (second & 0x40000000u) != 0u;
    U a = (U)(odd ? sine : cosine) ^ ((second ^ (second << 1)) & 0x80000000u);
    U b = (U)(odd ? cosine : sine) ^ (second & 0x80000000u);
    F left = radius * (F)a, right = radius * (F)b;
    F low = __builtin_shufflevector(left, right, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    F high = __builtin_shufflevector(left, right, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    narrow(out, low);
    narrow(out + 16, high);
}

template <int S>
static inline void store_normals(const Schedule& s, uint64_t id, int64_t block, float* out) {
    W c[S][4];
    philox<S>(s, id, GAUSSIANS, block, c);
#pragma GCC unroll 4
    for (int i = 0; i < S; i++)
        box_muller((U)(low32(c[i][0]) | (c[i][2] << 32)), (U)(low32(c[i][1]) | (c[i][3] << 32)), out + 32 * i);
}

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
        int64_t block = e / 4, left = e % 4 + n;
        for (; left > 32; left -= 64, block += 16, z += 64) store_normals<2>(s, id, block, z);
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
        U up = ((U)x + __builtin_convertvector(halves_at(half), U)) & 0xFFFF0000u;
        narrow(w, finite(x) ? clamp((F)up, (float)0x1.FEp127) : x);
    }
};

template <> struct Store<STOCHASTIC, Fp16> {
    static F old(const Fp16* w, const int16_t*) { return widen(w); }
    static void put(Fp16* w, int16_t*, const uint16_t* half, F x) {
        U bits = __builtin_convertvector(halves_at(half), U) >> 3;
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
        return (F)(((I)(__builtin_convertvector(halves_at(w), U) << 16)) + __builtin_convertvector((L)halves_at(low), I));
    }
    static void put(Bf16* w, int16_t* low, const uint16_t*, F x) {
        U high = ((U)x + 0x8000u) >> 16;
        H h = __builtin_convertvector(high, H), l = __builtin_convertvector((U)x - (high << 16), H);
        memcpy(w, &h, 32);
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

template <int STREAM, int V>
static inline void sum(const Plan& plan, int list, const std::vector<const char*>& noise, int64_t i, F (&total)[V]) {
    const Term *term = plan.terms + plan.ends[list], *end = plan.terms + plan.ends[list + 1];
    for (int v = 0; v < V; v++) total[v] = Tile<STREAM>::scaled(noise[term->key], i + 16 * v, term->scale);
    for (term++; term < end; term++)
        for (int v = 0; v < V; v++)
            total[v] = total[v] + Tile<STREAM>::scaled(noise[term->key], i + 16 * v, term->scale);
}

template <int UPDATE, class T>
static inline void finish(const Head& head, const T* w, T* out, int16_t* low, const uint16_t* half, F total) {
    F old = Store<UPDATE, T>::old(w, low);
    if (head.decays) old = old * head.keep;
    Store<UPDATE, T>::put(out, low, half, old + total);
}

// n elements from number e on: weights at w, results of list l at outs[l] + place.
template <int STREAM, int UPDATE, class T>
static void range(const Head& head, const Plan& plan, const std::vector<Schedule>& keys, Workspace<STREAM>& space,
                  int64_t e, const T* w, int64_t place, int64_t n) {
    for (int64_t done = 0; done < n; done += Tile<STREAM>::size) {
        int64_t m = n - done < Tile<STREAM>::size ? n - done : Tile<STREAM>::size;
        for (int k = 0; k < plan.keys; k++)
            space.noise[k] = Tile<STREAM>::fill(keys[k], head.id, e + done, m, &space.room[k * Tile<STREAM>::bytes]);
        const uint16_t* half = (const uint16_t*)space.halves.data() + (e + done) % 8;
        if (UPDATE == STOCHASTIC)
            words(keys.back(), head.id, ROUNDING, (e + done) / 8, ((e + done) % 8 + m + 7) / 8, space.halves.data());
        for (int l = 0; l < plan.lists; l++) {
            T* out = (T*)head.outs[l] + place + done;
            int16_t* low = UPDATE == MASTER ? head.low + place + done : nullptr;
            int64_t i = 0;
            for (; i + 64 <= m; i += 64) {
                F total[4];
                sum<STREAM, 4>(plan, l, space.noise, i, total);
                for (int v = 0; v < 4; v++) {
                    int64_t j = i + 16 * v;
                    finish<UPDATE, T>(head, w + done + j, out + j, low + j, half + j, total[v]);
                }
            }
            for (; i < m; i += 16) {  // what is left goes through copies of full width
                F total[1];
                T copy[16] = {};
                int16_t lower[16] = {};
                int64_t left = m - i < 16 ? m - i : 16;
                memcpy(copy, w + done + i, left * sizeof(T));
                if (UPDATE == MASTER) memcpy(lower, low + i, left * 2);
                sum<STREAM, 1>(plan, l, space.noise, i, total);
                finish<UPDATE, T>(head, copy, copy, lower, half + i, total[0]);
                memcpy(out + i, copy, left * sizeof(T));
                if (UPDATE == MASTER) memcpy(low + i, lower, left * 2);
            }
        }
    }
}

template <int STREAM, int UPDATE, class T> static void run(const Head& head, const Plan& plan) {
    std::vector<Schedule> keys;
    for (int k = 0; k < plan.keys; k++) keys.push_back(schedule(plan.key[k]));
    if (UPDATE == STOCHASTIC) keys.push_back(schedule(head.rounding_key));
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
                range<STREAM, UPDATE, T>(head, plan, keys, space, start, w + start, p * head.width, head.width);
            } else {
                int64_t start = p * piece, n = head.n - start < piece ? head.n - start : piece;
                range<STREAM, UPDATE, T>(head, plan, keys, space, start, w + start, start, n);
            }
        }
    }
}

template <int STREAM> static int dispatch(const Head& head, const Plan& plan) {
    switch (head.dtype * 3 + head.update) {
        case FLOAT32 * 3 + NEAREST: run<STREAM, NEAREST, float>(head, plan); return 0;
        case BFLOAT16 * 3 + NEAREST: run<STREAM, NEAREST, Bf16>(head, plan); return 0;
        case BFLOAT16 * 3 + STOCHASTIC: run<STREAM, STOCHASTIC, Bf16>(head, plan); return 0;
        case BFLOAT16 * 3 + MASTER: run<STREAM, MASTER, Bf16>(head, plan); return 0;
        case FLOAT16 * 3 + NEAREST: run<STREAM, NEAREST, Fp16>(head, plan); return 0;
        case FLOAT16 * 3 + STOCHASTIC: run<STREAM, STOCHASTIC, Fp16>(head, plan); return 0;
    }
    return 2;
}

// 0; 1 when a row number is outside the matrix; 2 when the combination does not exist.
// packed: int32 keys and lists, uint64 key[keys], int32 ends[lists + 1], terms.
extern "C" int zo_apply(const Head* head, const char* packed) {
    Plan plan;
    memcpy(&plan.keys, packed, 4);
    memcpy(&plan.lists, packed + 4, 4);
    plan.key = (const uint64_t*)(packed + 8);
    plan.ends = (const int32_t*)(plan.key + plan.keys);
    plan.terms = (const Term*)(plan.ends + plan.lists + 1);
    if (head->rows)
        for (int64_t i = 0; i < head->n; i++)
            if (head->rows[i] < 0 || head->rows[i] >= head->height) return 1;
    return head->stream == SIGNS ? dispatch<SIGNS>(*head, plan) : dispatch<GAUSSIANS>(*head, plan);
}
