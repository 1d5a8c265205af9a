/* Vectors of one instruction set and the few functions of them that the selective scan needs.
 *
 * Included by _cpu_scan_kernel.h. WIDTH is the number of floats in a vector, NAME(x) the name of x in this instruction
 * set; the macros below carry every name over to it, so the same text serves all of them.
 */

typedef float NAME(vector) __attribute__((vector_size(4 * WIDTH)));
typedef int32_t NAME(integers) __attribute__((vector_size(4 * WIDTH)));
#define V NAME(vector)
#define I NAME(integers)

#define load NAME(load)
INLINE V load(const float *x) {
    V v;
    memcpy(&v, x, sizeof v);
    return v;
}

#define store NAME(store)
INLINE void store(float *x, V v) { memcpy(x, &v, sizeof v); }

#define all_of NAME(all_of)
INLINE V all_of(float x) { return (V){0} + x; }

#define select NAME(select)
INLINE V select(I mask, V yes, V no) { return (V)((mask & (I)yes) | (~mask & (I)no)); }

#define magnitude NAME(magnitude)
INLINE V magnitude(V x) { return (V)((I)x & 0x7fffffff); }

/* Lower and upper half of a0 b0 a1 b1 ..., of the floats inside every quad, and of whole quads; the floats backwards. */
#define turned NAME(turned)
#define zip_low NAME(zip_low)
#define zip_high NAME(zip_high)
#define zip_quads_low NAME(zip_quads_low)
#define zip_quads_high NAME(zip_quads_high)
#if WIDTH == 16
#define Q(a, b) a, b, a + 1, b + 1
#define P(a, b, c, d) a, a + 1, a + 2, a + 3, b, b + 1, b + 2, b + 3, c, c + 1, c + 2, c + 3, d, d + 1, d + 2, d + 3
INLINE V zip_low(V a, V b) { return SHUFFLE(I, a, b, Q(0, 16), Q(4, 20), Q(8, 24), Q(12, 28)); }
INLINE V zip_high(V a, V b) { return SHUFFLE(I, a, b, Q(2, 18), Q(6, 22), Q(10, 26), Q(14, 30)); }
INLINE V zip_quads_low(V a, V b) { return SHUFFLE(I, a, b, P(0, 16, 4, 20)); }
INLINE V zip_quads_high(V a, V b) { return SHUFFLE(I, a, b, P(8, 24, 12, 28)); }
INLINE V turned(V a) { return SHUFFLE(I, a, a, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0); }
#elif WIDTH == 8
INLINE V zip_low(V a, V b) { return SHUFFLE(I, a, b, 0, 8, 1, 9, 4, 12, 5, 13); }
INLINE V zip_high(V a, V b) { return SHUFFLE(I, a, b, 2, 10, 3, 11, 6, 14, 7, 15); }
INLINE V zip_quads_low(V a, V b) { return SHUFFLE(I, a, b, 0, 1, 2, 3, 8, 9, 10, 11); }
INLINE V zip_quads_high(V a, V b) { return SHUFFLE(I, a, b, 4, 5, 6, 7, 12, 13, 14, 15); }
INLINE V turned(V a) { return SHUFFLE(I, a, a, 7, 6, 5, 4, 3, 2, 1, 0); }
#else
INLINE V zip_low(V a, V b) { return SHUFFLE(I, a, b, 0, 4, 1, 5); }
INLINE V zip_high(V a, V b) { return SHUFFLE(I, a, b, 2, 6, 3, 7); }
INLINE V turned(V a) { return SHUFFLE(I, a, a, 3, 2, 1, 0); }
#endif

/* Lane i of the result is the sum over the lanes of x[i]; overwrites x. */
#define sums NAME(sums)
INLINE V sums(V *x) {
    UNROLL
    for (int i = 0; i < WIDTH; i += 4) {
        V even = zip_low(x[i], x[i + 2]) + zip_high(x[i], x[i + 2]);
        V odd = zip_low(x[i + 1], x[i + 3]) + zip_high(x[i + 1], x[i + 3]);
        x[i / 4] = zip_low(even, odd) + zip_high(even, odd);
    }
#if WIDTH > 4
    UNROLL
    for (int half = WIDTH / 8; half; half /= 2)
        UNROLL
        for (int i = 0; i < half; i++)
            x[i] = zip_quads_low(x[i], x[i + half]) + zip_quads_high(x[i], x[i + half]);
#endif
    return x[0];
}

/* The lanes of one vector. */
#define sum_of NAME(sum_of)
INLINE float sum_of(const float *x) {
    float sum = 0;
    for (int i = 0; i < WIDTH; i++)
        sum += x[i];
    return sum;
}

/* x[i][j] = x[j][i]: inside the blocks of 4 x 4, then of the blocks. */
#define transpose NAME(transpose)
INLINE void transpose(V *x) {
    UNROLL
    for (int i = 0; i < WIDTH; i += 4) {
        V a = zip_low(x[i], x[i + 2]), b = zip_high(x[i], x[i + 2]);
        V c = zip_low(x[i + 1], x[i + 3]), d = zip_high(x[i + 1], x[i + 3]);
        x[i] = zip_low(a, c);
        x[i + 1] = zip_high(a, c);
        x[i + 2] = zip_low(b, d);
        x[i + 3] = zip_high(b, d);
    }
#if WIDTH > 4
    UNROLL
    for (int step = WIDTH / 4; step > 1; step /= 2) {
        V y[WIDTH];
        UNROLL
        for (int i = 0; i < WIDTH / 2; i++) {
            int to = i / 4 * 8 + i % 4;
            y[to] = zip_quads_low(x[i], x[i + WIDTH / 2]);
            y[to + 4] = zip_quads_high(x[i], x[i + WIDTH / 2]);
        }
        memcpy(x, y, sizeof y);
    }
#endif
}

/* 2**x for |x| <= 1/2, relative error 1e-7: weighted minimax with p(0) = 1, so that slow decays are not biased. `count`
 * vectors side by side, to hide the latency of each step. */
#define exp2_small NAME(exp2_small)
INLINE void exp2_small(V *x, int count) {
    static const float terms[] = {0x1.3cea9ep-7f, 0x1.c6b754p-5f, 0x1.ebf9bcp-3f, 0x1.62e42ap-1f, 1.0f};
    V p[TOGETHER];
    UNROLL
    for (int i = 0; i < count; i++)
        p[i] = all_of(0x1.5bb9fcp-10f);
    UNROLL
    for (int j = 0; j < 5; j++)
        UNROLL
        for (int i = 0; i < count; i++)
            p[i] = p[i] * x[i] + terms[j];
    memcpy(x, p, count * sizeof *x);
}

/* Parts of 2**x: x within bounds, its nearest integer k, and p * 2**k: 0 where that is too small, NaN stays NaN. */
#define bounded NAME(bounded)
#define nearest NAME(nearest)
#define scale NAME(scale)
#if WIDTH == 16
INLINE V bounded(V x) { return x; }
INLINE V nearest(V x) { return (V)_mm512_roundscale_ps((__m512)x, 0); }
INLINE V scale(V p, V k) { return (V)_mm512_scalef_ps((__m512)p, (__m512)k); }
#else
#define ROUND 0x1.8p23f /* floats of this size are one apart, so adding it rounds */
#define larger NAME(larger)
#define smaller NAME(smaller)
#if WIDTH == 8 /* these return x where one is NaN */
INLINE V larger(V low, V x) { return (V)_mm256_max_ps((__m256)low, (__m256)x); }
INLINE V smaller(V high, V x) { return (V)_mm256_min_ps((__m256)high, (__m256)x); }
#elif defined(__x86_64__)
INLINE V larger(V low, V x) { return (V)_mm_max_ps((__m128)low, (__m128)x); }
INLINE V smaller(V high, V x) { return (V)_mm_min_ps((__m128)high, (__m128)x); }
#else
INLINE V larger(V low, V x) { return select(x < low, low, x); }
INLINE V smaller(V high, V x) { return select(x > high, high, x); }
#endif
INLINE V bounded(V x) { return larger(all_of(-127), smaller(all_of(128), x)); }
INLINE V nearest(V x) { return (x + ROUND) - ROUND; }
INLINE V scale(V p, V k) { return p * (V)((I)(k + (ROUND + 127.0f)) << 23); }
#undef ROUND
#endif

/* a * b - k, rounded once: where a * b is -100, rounding it first would change 2**(a * b) by 3e-6, another time for
 * every token, and gradients that are sums of a few tokens that cancel would lose more. Not below -1, which it is where
 * a * b is out of bounds: 2**k is zero there and has to meet a finite factor. */
#define rest_of NAME(rest_of)
INLINE V rest_of(V a, float b, V k) {
#if WIDTH == 16 /* k has no bounds, and the error of so large a product either sign: the smaller of it and 1, signed */
    return (V)_mm512_range_ps(_mm512_fmsub_ps((__m512)a, (__m512)all_of(b), (__m512)k), (__m512)all_of(1), 2);
#elif WIDTH == 8
    return larger(all_of(-1), (V)_mm256_fmsub_ps((__m256)a, (__m256)all_of(b), (__m256)k));
#else /* upper halves of the floats have exact products */
    V b_all = all_of(b), a_high = (V)((I)a & ~0xfff), b_high = (V)((I)b_all & ~0xfff);
    return larger(all_of(-1), (a_high * b_high - k) + (a_high * (b_all - b_high) + (a - a_high) * b_all));
#endif
}

/* 2**(a * delta[i]) of the next tokens. */
#define decays NAME(decays)
INLINE void decays(V *e, V a, const float *delta) {
    V k[TOGETHER];
    UNROLL
    for (int i = 0; i < TOGETHER; i++) {
        k[i] = nearest(bounded(a * delta[i]));
        e[i] = rest_of(a, delta[i], k[i]);
    }
    exp2_small(e, TOGETHER);
    UNROLL
    for (int i = 0; i < TOGETHER; i++)
        e[i] = scale(e[i], k[i]);
}

/* e**-|x|. ln 2 comes in two parts, the first of few bits, so that the remainder is exact. */
#define decay_of NAME(decay_of)
INLINE V decay_of(V x) {
    x = -magnitude(x);
    x = select(x < -88.0f, all_of(-88.0f), x);
    V k = nearest(x * LOG2E);
    V rest = ((x - k * 0.693359375f) + k * 2.12194440e-4f) * LOG2E;
    exp2_small(&rest, 1);
    return scale(rest, k);
}

/* 1 / (1 + exp(-x)), and the same of -x, both to full relative accuracy. */
#define sigmoid NAME(sigmoid)
INLINE V sigmoid(V x, V *of_minus_x) {
    V e = decay_of(x), large = 1.0f / (1.0f + e), small = e * large;
    *of_minus_x = select(x < 0, large, small);
    return select(x < 0, small, large);
}

/* log(1 + exp(x)) = max(x, 0) + 2 artanh(e / (2 + e)) with e = exp(-|x|). */
#define log1p_exp NAME(log1p_exp)
INLINE V log1p_exp(V x) {
    V e = decay_of(x), s = e / (2.0f + e), q = s * s;
    V p = q * 0.1401223f + 0.1399957f;
    p = p * q + 0.2001085f;
    p = p * q + 0.33333207f;
    return 0.5f * (x + magnitude(x)) + 2.0f * (s + s * q * p);
}

/* WIDTH floats from x on, upwards or, with a `step` of -1, downwards in memory. */
#define load_line NAME(load_line)
INLINE V load_line(const float *x, int64_t step) { return step == 1 ? load(x) : turned(load(x - (WIDTH - 1))); }

#define store_line NAME(store_line)
INLINE void store_line(float *x, int64_t step, V v, int add) {
    float *first = step == 1 ? x : x - (WIDTH - 1);
    v = step == 1 ? v : turned(v);
    store(first, add ? load(first) + v : v);
}

/* Floats at distances `row` and `column` to rows of `pitch` floats; whole tiles, with zeros where there are none. */
#define gather NAME(gather)
INLINE void gather(float *out, int64_t pitch, const float *x, int64_t row, int64_t column, int64_t rows,
                   int64_t columns) {
    int along_columns = is_one(column), in_lines = along_columns || is_one(row);
    int64_t step = along_columns ? column : row, next = along_columns ? row : column;
    for (int64_t r = 0; r < rows; r += WIDTH)
        for (int64_t c = 0; c < columns; c += WIDTH) {
            const float *from = x + r * row + c * column;
            V tile[WIDTH];
            if (in_lines && r + WIDTH <= rows && c + WIDTH <= columns) {
                UNROLL
                for (int i = 0; i < WIDTH; i++)
                    tile[i] = load_line(from + i * next, step);
                if (!along_columns)
                    transpose(tile);
            } else {
                memset(tile, 0, sizeof tile);
                for (int64_t i = 0; i < WIDTH && r + i < rows; i++)
                    for (int64_t j = 0; j < WIDTH && c + j < columns; j++)
                        tile[i][j] = from[i * row + j * column];
            }
            UNROLL
            for (int i = 0; i < WIDTH; i++)
                store(out + (r + i) * pitch + c, tile[i]);
        }
}

/* The way back; with `add` to what is there. */
#define scatter NAME(scatter)
INLINE void scatter(float *out, int64_t row, int64_t column, const float *x, int64_t pitch, int64_t rows,
                    int64_t columns, int add) {
    int along_columns = is_one(column), in_lines = along_columns || is_one(row);
    int64_t step = along_columns ? column : row, next = along_columns ? row : column;
    for (int64_t r = 0; r < rows; r += WIDTH)
        for (int64_t c = 0; c < columns; c += WIDTH) {
            float *to = out + r * row + c * column;
            V tile[WIDTH];
            UNROLL
            for (int i = 0; i < WIDTH; i++)
                tile[i] = load(x + (r + i) * pitch + c);
            if (in_lines && r + WIDTH <= rows && c + WIDTH <= columns) {
                if (!along_columns)
                    transpose(tile);
                UNROLL
                for (int i = 0; i < WIDTH; i++)
                    store_line(to + i * next, step, tile[i], add);
            } else {
                for (int64_t i = 0; i < WIDTH && r + i < rows; i++)
                    for (int64_t j = 0; j < WIDTH && c + j < columns; j++)
                        to[i * row + j * column] = (add ? to[i * row + j * column] : 0) + tile[i][j];
            }
        }
}
