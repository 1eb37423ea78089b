// The noise of philox.py in vectors: the generator, Box-Muller, and how 16-bit numbers are read and written.
//
// Formulas are philox.py's, in its order of operations; compile with -ffp-contract=off, because a fused
// multiply-add rounds differently. Vectors are GCC's (16 floats, 8 words of 64 bits), which become AVX-512,
// AVX2, NEON or scalar code; by hand is only what compilers do badly (ZO_PORTABLE leaves that out).

#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

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

enum Stream { SIGNS, GAUSSIANS, ROUNDING, SHORT_GAUSSIANS };

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

// a where the mask is all ones, b where it is 0; shifts make masks, because GCC compares and selects vectors
// wider than the machine's own one element at a time.
static inline F pick(I mask, F a, F b) { return (F)(((I)a & mask) | ((I)b & ~mask)); }

static inline F root(F x) {
#if defined(ZO_AVX512)
    return (F)_mm512_sqrt_ps((__m512)x);
#elif defined(ZO_AVX2)
    __m256 half[2];
    memcpy(half, &x, 64);
    for (auto& h : half) h = _mm256_sqrt_ps(h);
    memcpy(&x, half, 64);
    return x;
#else
    for (int i = 0; i < 16; i++) x[i] = sqrtf(x[i]);
    return x;
#endif
}

static inline F signed_by(uint16_t bits, F x) {  // -x where the bit is set
#if defined(ZO_AVX512)
    return (F)_mm512_mask_blend_ps(bits, (__m512)x, (__m512)-x);
#else
    const U up = {31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16};
    return (F)((U)x ^ (((bits + U{}) << up) & 0x80000000u));
#endif
}

static inline F widen(const float* p) { F x; memcpy(&x, p, 64); return x; }
static inline void narrow(float* p, F x) { memcpy(p, &x, 64); }

struct Bf16 { uint16_t bits; };
struct Fp16 { uint16_t bits; };

static inline H halves_at(const void* p) { H h; memcpy(&h, p, 32); return h; }
static inline U widen16(const void* p) {  // sixteen 16-bit words
#if defined(ZO_AVX512)
    return (U)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
#else
    return __builtin_convertvector(halves_at(p), U);
#endif
}

static inline F widen(const Bf16* p) { return (F)(widen16(p) << 16); }
static inline void narrow(Bf16* p, F x) {
    U u = (U)x;
    U even = (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16;
    I nan = (0x7F800000 - (I)(u & 0x7FFFFFFFu)) >> 31;
    H h = __builtin_convertvector((even & ~(U)nan) | (0x7FC0u & (U)nan), H);
    memcpy(p, &h, 32);
}

static inline void narrow_pair(Bf16* p, F x, F y) {
#if defined(ZO_AVX512) && defined(__AVX512BF16__)
    // The instruction takes subnormal numbers for zero.
    __mmask16 tiny = _kor_mask16(_mm512_fpclass_ps_mask((__m512)x, 0x20), _mm512_fpclass_ps_mask((__m512)y, 0x20));
    if (__builtin_expect(_kortestz_mask16_u8(tiny, tiny), 1)) {
        __m512bh both = _mm512_cvtne2ps_pbh((__m512)y, (__m512)x);
        memcpy(p, &both, 64);
        return;
    }
#endif
    narrow(p, x);
    narrow(p + 16, y);
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
    U h = widen16(p), size = (h & 0x7FFFu) << 13;
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

#if defined(ZO_AVX512)
constexpr int SIDE = 4;  // sets of blocks worked on side by side
#else
constexpr int SIDE = 1;  // fewer and narrower registers
#endif

// ---- the generator: S sets of eight blocks, one word a 64-bit lane; what is in the high halves is ignored

struct Schedule {
    uint64_t k[10][2];
    int stream;
};

static Schedule schedule(uint64_t key, int stream) {
    Schedule s;
    s.stream = stream;
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
#if defined(ZO_AVX512)
        W even = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
        W odd = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
        memcpy(out + 128 * i, &even, 64);
        memcpy(out + 128 * i + 64, &odd, 64);
#else
        uint64_t x[8], y[8], both[16];
        memcpy(x, &a, 64);
        memcpy(y, &b, 64);
        for (int k = 0; k < 8; k++) both[2 * k] = x[k], both[2 * k + 1] = y[k];
        memcpy(out + 128 * i, both, 128);
#endif
    }
}

// Words of `count` blocks in the order of their elements; up to seven blocks more are written.
static void words(const Schedule& s, uint64_t id, uint64_t stream, int64_t block, int64_t count, char* out) {
    for (; count > 8 * (SIDE - 1); count -= 8 * SIDE, block += 8 * SIDE, out += 128 * SIDE)
        store_words<SIDE>(s, id, stream, block, out);
    for (; count > 0; count -= 8, block += 8, out += 128) store_words<1>(s, id, stream, block, out);
}

// S of everything side by side, one step of the formula after another: each is a long chain of operations that
// wait for each other, and S chains keep the processor busy.
#define EACH _Pragma("GCC unroll 4") for (int i = 0; i < S; i++)

template <int S> static inline void logarithm(const F (&u)[S], F (&result)[S]) {
    const float c[8] = {-1.1514610310e-1f, 1.1676998740e-1f,  -1.2420140846e-1f, 1.4249322787e-1f,
                        -1.6668057665e-1f, 2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f};
    F m[S], e[S], z[S], y[S];
    EACH {
        I pattern = (I)u[i];
        F mantissa = (F)((pattern & 0x7FFFFF) | 0x3F000000);
        I low = ((I)mantissa - 0x3F3504F3) >> 31;  // mantissa < 0.70710678f, both positive
        e[i] = __builtin_convertvector((pattern >> 23) - 126 + low, F);
        m[i] = pick(low, mantissa + mantissa, mantissa) - 1.0f;
    }
    EACH z[i] = m[i] * m[i];
    EACH y[i] = m[i] * 7.0376836292e-2f + c[0];
#pragma GCC unroll 7
    for (int k = 1; k < 8; k++) EACH y[i] = y[i] * m[i] + c[k];
    EACH y[i] = y[i] * m[i] * z[i] + e[i] * -2.12194440e-4f - 0.5f * z[i];
    EACH result[i] = (m[i] + y[i]) + e[i] * 0.693359375f;
}

static inline void interleave(F a, F b, float* out) {
#if defined(ZO_AVX512)
    narrow(out, __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
    narrow(out + 16, __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31));
#else
    float x[16], y[16];
    narrow(x, a);
    narrow(y, b);
    for (int i = 0; i < 16; i++) out[2 * i] = x[i], out[2 * i + 1] = y[i];
#endif
}

// Thirty-two normals of eight blocks a set; `first` and `second` hold words (0, 2) and (1, 3) of each block.
template <int S> static inline void box_muller(const U (&first)[S], const U (&second)[S], float* out) {
    F radius[S], x[S], z[S], sine[S], cosine[S];
    EACH radius[i] = __builtin_convertvector((I)(first[i] >> 8) + 1, F) * 0x1p-24f;
    logarithm<S>(radius, radius);
    EACH radius[i] = root(-2.0f * radius[i]);
    EACH x[i] = __builtin_convertvector((I)((second[i] >> 6) & 0xFFFFFFu) - (1 << 23), F) + 0.5f;
    EACH x[i] = x[i] * (float)(3.141592653589793 / 2 * 0x1p-24);
    EACH z[i] = x[i] * x[i];
    EACH sine[i] = z[i] * -1.9515295891e-4f + 8.3321608736e-3f;
    EACH cosine[i] = z[i] * 2.443315711809948e-5f + -1.388731625493765e-3f;
    EACH sine[i] = sine[i] * z[i] + -1.6666654611e-1f;
    EACH cosine[i] = cosine[i] * z[i] + 4.166664568298827e-2f;
    EACH sine[i] = sine[i] * z[i] * x[i] + x[i];
    EACH cosine[i] = cosine[i] * (z[i] * z[i]) - 0.5f * z[i] + 1.0f;
    EACH {
        I odd = (I)(second[i] << 1) >> 31;
        U a = (U)pick(odd, sine[i], cosine[i]) ^ ((second[i] ^ (second[i] << 1)) & 0x80000000u);
        U b = (U)pick(odd, cosine[i], sine[i]) ^ (second[i] & 0x80000000u);
        F left = radius[i] * (F)a, right = radius[i] * (F)b;
        interleave(left, right, out + 32 * i);
    }
}

template <int S>
static inline void store_normals(const Schedule& s, uint64_t id, int64_t block, float* out) {
    W c[S][4];
    U first[S], second[S];
    philox<S>(s, id, GAUSSIANS, block, c);
    EACH first[i] = (U)(low32(c[i][0]) | (c[i][2] << 32));
    EACH second[i] = (U)(low32(c[i][1]) | (c[i][3] << 32));
    box_muller<S>(first, second, out);
}

#undef EACH

// Thirty-two short Gaussians of as many 16-bit words: three table entries each, exact integers.
static inline void store_short(const char* half, float* out) {
    alignas(64) static const int16_t table[32] = {
        90, 265, 441, 622, 809, 1002, 1204, 1418, 1646, 1892, 2168, 2480, 2858, 3339, 4041, 5560,
        -90, -265, -441, -622, -809, -1002, -1204, -1418, -1646, -1892, -2168, -2480, -2858, -3339, -4041, -5560};
#if defined(ZO_AVX512)
    const __m512i t = _mm512_load_si512(table), h = _mm512_loadu_si512(half);  // an index is the five lowest bits
    __m512i sum = _mm512_add_epi16(_mm512_permutexvar_epi16(h, t), _mm512_permutexvar_epi16(_mm512_srli_epi16(h, 5), t));
    sum = _mm512_add_epi16(sum, _mm512_permutexvar_epi16(_mm512_srli_epi16(h, 10), t));
    const __m512i low = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(sum));
    const __m512i high = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(sum, 1));
    narrow(out, (F)_mm512_cvtepi32_ps(low) * 0x1p-12f);
    narrow(out + 16, (F)_mm512_cvtepi32_ps(high) * 0x1p-12f);
#else
    for (int i = 0; i < 32; i++) {
        uint16_t h;
        memcpy(&h, half + 2 * i, 2);
        out[i] = (float)(table[h & 31] + table[h >> 5 & 31] + table[h >> 10 & 31]) * 0x1p-12f;
    }
#endif
}
