/* Outlook attention on CPUs: nothing is unfolded, folded or added atomically, softmax is inside.

   Windows are 3x3 at stride 2 and padding 1, heads have 32 channels. A thread owns an interval of rows of windows, and
   with each row the two rows of pixels from the windows' centres on; to the upper one of three rows that a window
   covers it adds what the row of windows before has left there. Shapes and formulas are those of `ops/outlook_cuda.py`.

   "Taps" are the nine pixels that a window adds to, "keys" the nine that it reads. Logits (taps, keys) of all heads of
   a window are turned to (keys, taps of all heads), so that eight softmaxes are computed side by side.

   Built by setup.py, called through ctypes: no header of Python or torch is needed. OpenMP's functions are those that
   torch has loaded, so both share one pool of threads. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define DIM 32
#define LANES 8
#define VECTORS (DIM / LANES)
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));

#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (ints){__VA_ARGS__})
#endif

typedef struct {
    int64_t height, width, heads;
    int bf16; /* bfloat16, else float */
    float scale;
} sizes;

INLINE float from_bf16(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}

INLINE uint16_t to_bf16(float value) { /* to the nearest, ties to even */
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (value != value) return 0x7fc0;
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

INLINE vec where(ints condition, vec a, vec b) { return (vec)((condition & (ints)a) | (~condition & (ints)b)); }

INLINE vec exponential(vec x) { /* of x <= 0, to 1e-7; NaN stays NaN */
    x = where(x < -87, (vec){0} - 87, x);
    vec shifted = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: the integer is in the last bits */
    vec n = shifted - 12582912.0f;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f; /* log(2) in two parts */
    vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1;
    return p * (vec)(((ints)shifted + 127) << 23);
}

/* Weights (9 keys, `stride` >= taps) of one window from its logits (taps, 9 keys). */
INLINE void softmax(const void *logits, int64_t at, int64_t taps, int64_t stride, const sizes *s, float *weights) {
    if (s->bf16) {
        const uint16_t *from = (const uint16_t *)logits + at;
        for (int64_t t = 0; t < taps; t++)
            for (int k = 0; k < 9; k++) weights[k * stride + t] = from_bf16(from[9 * t + k]) * s->scale;
    } else {
        const float *from = (const float *)logits + at;
        for (int64_t t = 0; t < taps; t++)
            for (int k = 0; k < 9; k++) weights[k * stride + t] = from[9 * t + k] * s->scale;
    }
    for (int64_t t = 0; t < stride; t += LANES) {
        vec row[9], top, sum = {0};
#pragma GCC unroll 9
        for (int k = 0; k < 9; k++) {
            row[k] = *(const vec *)(weights + k * stride + t);
            top = k ? where(row[k] > top, row[k], top) : row[k];
        }
#pragma GCC unroll 9
        for (int k = 0; k < 9; k++) sum += row[k] = exponential(row[k] - top);
        sum = 1 / sum;
#pragma GCC unroll 9
        for (int k = 0; k < 9; k++) *(vec *)(weights + k * stride + t) = row[k] * sum;
    }
}

/* The nine pixels under window (i, j) of the head that begins at channel `c`: (9, DIM), zeros outside of the map. */
INLINE void load(const void *map, int64_t i, int64_t j, int64_t c, const sizes *s, float *pixels) {
    for (int p = 0; p < 9; p++, pixels += DIM) {
        int64_t y = 2 * i + p / 3 - 1, x = 2 * j + p % 3 - 1;
        if (y < 0 || y >= s->height || x < 0 || x >= s->width) {
            memset(pixels, 0, DIM * sizeof(float));
            continue;
        }
        int64_t at = (y * s->width + x) * s->heads * DIM + c;
        if (s->bf16)
            for (int d = 0; d < DIM; d++) pixels[d] = from_bf16(((const uint16_t *)map)[at + d]);
        else
#pragma GCC unroll 4
            for (int d = 0; d < DIM; d += LANES) *(vec *)(pixels + d) = *(const vec *)((const float *)map + at + d);
    }
}

/* Of three outputs each: out (3, DIM) = sum over nine of weights[o * across + n * along] * pixels[n]. */
INLINE void mix(const float *weights, int64_t across, int64_t along, const float *pixels, vec out[3][VECTORS]) {
#pragma GCC unroll 3
    for (int p = 0; p < 3; p++)
#pragma GCC unroll 4
        for (int d = 0; d < VECTORS; d++) out[p][d] = (vec){0};
    for (int n = 0; n < 9; n++, weights += along, pixels += DIM) {
        vec a = weights[0] - (vec){0}, b = weights[across] - (vec){0}, c = weights[2 * across] - (vec){0};
#pragma GCC unroll 4
        for (int d = 0; d < VECTORS; d++) {
            vec x = *(const vec *)(pixels + d * LANES);
            out[0][d] += a * x;
            out[1][d] += b * x;
            out[2][d] += c * x;
        }
    }
}

/* A row of three pixels under window (., j), to row `to` of the map; what earlier windows left there is added to. */
INLINE void place(vec pixels[3][VECTORS], float *to, int64_t j, int64_t c, int first, const sizes *s) {
#pragma GCC unroll 3
    for (int p = 0; p < 3; p++) {
        int64_t x = 2 * j + p - 1;
        if (x < 0 || x >= s->width) continue;
        float *at = to + x * s->heads * DIM + c;
#pragma GCC unroll 4
        for (int d = 0; d < VECTORS; d++) {
            vec *there = (vec *)(at + d * LANES);
            if (first && p > 0)
                *there = pixels[p][d];
            else
                *there += pixels[p][d];
        }
    }
}

/* Sums over the lanes of eight vectors. */
INLINE vec sums(const vec v[LANES]) {
    vec pairs[4], fours[2];
#pragma GCC unroll 4
    for (int n = 0; n < 4; n++)
        pairs[n] = SHUFFLE(v[2 * n], v[2 * n + 1], 0, 8, 2, 10, 4, 12, 6, 14) +
                   SHUFFLE(v[2 * n], v[2 * n + 1], 1, 9, 3, 11, 5, 13, 7, 15);
#pragma GCC unroll 2
    for (int n = 0; n < 2; n++)
        fours[n] = SHUFFLE(pairs[2 * n], pairs[2 * n + 1], 0, 1, 8, 9, 4, 5, 12, 13) +
                   SHUFFLE(pairs[2 * n], pairs[2 * n + 1], 2, 3, 10, 11, 6, 7, 14, 15);
    return SHUFFLE(fours[0], fours[1], 0, 1, 2, 3, 8, 9, 10, 11) +
           SHUFFLE(fours[0], fours[1], 4, 5, 6, 7, 12, 13, 14, 15);
}

INLINE vec product(const float *a, const float *b) { /* its lanes' sum is the dot product */
    vec sum = {0};
#pragma GCC unroll 4
    for (int d = 0; d < VECTORS; d++) sum += *(const vec *)(a + d * LANES) * *(const vec *)(b + d * LANES);
    return sum;
}

/* Dot products of nine pixels of the gradient with nine of the map: products[k * stride + t]. */
INLINE void products(const float *grads, const float *values, int64_t stride, float *to) {
    vec v[LANES];
    for (int k = 0; k < 9; k++) {
#pragma GCC unroll 8
        for (int t = 0; t < LANES; t++) v[t] = product(grads + t * DIM, values + k * DIM);
        *(vec *)(to + k * stride) = sums(v);
    }
#pragma GCC unroll 8
    for (int k = 0; k < LANES; k++) v[k] = product(grads + 8 * DIM, values + k * DIM);
    vec last = sums(v), corner = product(grads + 8 * DIM, values + 8 * DIM);
    float total = 0;
    for (int k = 0; k < LANES; k++) {
        to[k * stride + 8] = last[k];
        total += corner[k];
    }
    to[8 * stride + 8] = total;
}

/* weights * (products - their mean by weights) * scale, turned back to (taps, 9 keys). */
INLINE void softmax_backward(
    const float *weights, float *products, int64_t taps, int64_t stride, const sizes *s, void *to, int64_t at
) {
    for (int64_t t = 0; t < stride; t += LANES) {
        vec mean = {0};
        for (int k = 0; k < 9; k++)
            mean += *(const vec *)(weights + k * stride + t) * *(const vec *)(products + k * stride + t);
        for (int k = 0; k < 9; k++) {
            vec *there = (vec *)(products + k * stride + t);
            *there = *(const vec *)(weights + k * stride + t) * (*there - mean) * s->scale;
        }
    }
    for (int64_t t = 0; t < taps; t++)
        for (int k = 0; k < 9; k++) {
            float value = products[k * stride + t];
            if (s->bf16)
                ((uint16_t *)to)[at + 9 * t + k] = to_bf16(value);
            else
                ((float *)to)[at + 9 * t + k] = value;
        }
}

#define ARGUMENTS \
    const void *grad, const void *v, const void *logits, void *out, void *grad_logits, int64_t first, int64_t last, \
        const sizes *s, float *scratch

/* Rows of windows first..last-1 of one image, forward (grad is NULL) or backward. */
INLINE void rows(ARGUMENTS) {
    int64_t w = (s->width + 1) / 2, h = (s->height + 1) / 2, taps = 9 * s->heads;
    int64_t stride = (taps + LANES - 1) / LANES * LANES, line = s->width * s->heads * DIM;
    float *weights = scratch, *dots = weights + 9 * stride, *lines = dots + 9 * stride;
    float values[9 * DIM], grads[9 * DIM];
    vec mixed[3][VECTORS];
    memset(scratch, 0, 18 * stride * sizeof(float)); /* lanes beyond the taps are computed, too */
    for (int64_t i = first; i <= last && i < h; i++) {
        for (int64_t j = 0; j < w; j++) {
            int64_t at = (i * w + j) * taps * 9;
            softmax(logits, at, taps, stride, s, weights);
            for (int64_t head = 0; head < s->heads; head++) {
                const float *mine = weights + 9 * head;
                if (!grad || i < last) load(v, i, j, head * DIM, s, values);
                if (grad) load(grad, i, j, head * DIM, s, grads);
                for (int p = i == first; p < (i == last ? 1 : 3); p++) { /* rows of three pixels */
                    int64_t y = 2 * i + p - 1;
                    if (y < 0 || y >= s->height) continue;
                    if (grad)
                        mix(mine + 3 * p * stride, stride, 1, grads, mixed);
                    else
                        mix(mine + 3 * p, 1, stride, values, mixed);
                    float *to = s->bf16 ? lines + (y & 3) * line : (float *)out + y * line;
                    place(mixed, to, j, head * DIM, p > 0, s);
                }
                if (grad && i < last) products(grads, values, stride, dots + 9 * head);
            }
            if (grad && i < last) softmax_backward(weights, dots, taps, stride, s, grad_logits, at);
        }
        for (int64_t y = 2 * i - 1; s->bf16 && y <= 2 * i; y++) { /* nothing is added to these any more */
            if (y < 2 * first || y >= 2 * last || y >= s->height) continue;
            for (int64_t n = 0; n < line; n++) ((uint16_t *)out)[y * line + n] = to_bf16(lines[(y & 3) * line + n]);
        }
    }
    int64_t y = 2 * h - 1; /* an even map's last row, below which there is no window */
    if (s->bf16 && last == h && y < s->height)
        for (int64_t n = 0; n < line; n++) ((uint16_t *)out)[y * line + n] = to_bf16(lines[(y & 3) * line + n]);
}

typedef void function(ARGUMENTS);

static void rows_anywhere(ARGUMENTS) { rows(grad, v, logits, out, grad_logits, first, last, s, scratch); }

#ifdef __x86_64__
__attribute__((target("avx2,fma"))) static void rows_avx2(ARGUMENTS) {
    rows(grad, v, logits, out, grad_logits, first, last, s, scratch);
}

static function *best(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? rows_avx2 : rows_anywhere;
}
#else
static function *best(void) { return rows_anywhere; }
#endif

/* `out` is the map, or with `grad` the gradient of v. Returns 0, or 1 where memory was not to be had. */
int outlook(
    const void *grad, const void *v, const void *logits, void *out, void *grad_logits,
    int64_t batch, int64_t height, int64_t width, int64_t heads, int bf16, float scale, int threads
) {
    sizes s = {height, width, heads, bf16, scale};
    int64_t h = (height + 1) / 2, w = (width + 1) / 2, size = bf16 ? 2 : 4;
    int64_t parts = (threads + batch - 1) / batch, map = height * width * heads * DIM * size;
    parts = parts < h ? parts : h;
    size_t scratch = (18 * (9 * heads + LANES) + (bf16 ? 4 * width * heads * DIM : 0)) * sizeof(float);
    function *compute = best();
    int failed = 0;
#pragma omp parallel for num_threads(threads) reduction(| : failed)
    for (int64_t task = 0; task < batch * parts; task++) {
        int64_t image = task / parts, part = task % parts, at = image * map, windows = image * h * w * heads * 81 * size;
        float *mine = malloc(scratch);
        if (!mine) {
            failed = 1;
            continue;
        }
        compute(
            grad ? (const char *)grad + at : NULL, (const char *)v + at, (const char *)logits + windows,
            (char *)out + at, grad ? (char *)grad_logits + windows : NULL,
            part * h / parts, (part + 1) * h / parts, &s, mine
        );
        free(mine);
    }
    return failed;
}
