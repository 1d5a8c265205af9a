/* Kernels of the selective scan for one instruction set; _cpu_scan.c includes this file once for each.
 *
 * Before the inclusion WIDTH is the number of floats in a vector and NAME(x) the name of x in this instruction set.
 *
 * A vector holds WIDTH states of one channel, so the recurrence of a token is a few vector operations; more states are
 * further passes over the same chunk of tokens. Sums over states (y, and the gradients at u and delta) reduce WIDTH
 * tokens at a time: WIDTH vectors become one by halving. B and C come as (N, L) and are turned into (tokens, states)
 * once for all channels of a task; their gradients take the way back. Missing states and tokens are zeros, which
 * change nothing: exp(0) = 1 keeps the state and B = C = 0 adds none.
 */

typedef float NAME(vector) __attribute__((vector_size(4 * WIDTH)));
typedef int32_t NAME(ivector) __attribute__((vector_size(4 * WIDTH)));
#define V NAME(vector)
#define I NAME(ivector)

#define load NAME(load)
INLINE V load(const float *x) {
    V v;
    memcpy(&v, x, sizeof v);
    return v;
}

#define store NAME(store)
INLINE void store(float *x, V v) { memcpy(x, &v, sizeof v); }

#define select NAME(select)
INLINE V select(I mask, V yes, V no) { return (V)((mask & (I)yes) | (~mask & (I)no)); }

/* a0 b0 a1 b1 ... of the lower and of the upper halves: the one permutation that sums and transposes are made of. */
#define zip_low NAME(zip_low)
#define zip_high NAME(zip_high)
#if WIDTH == 16
INLINE V zip_low(V a, V b) { return SHUFFLE(I, a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23); }
INLINE V zip_high(V a, V b) { return SHUFFLE(I, a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31); }
#elif WIDTH == 8
INLINE V zip_low(V a, V b) { return SHUFFLE(I, a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
INLINE V zip_high(V a, V b) { return SHUFFLE(I, a, b, 4, 12, 5, 13, 6, 14, 7, 15); }
#else
INLINE V zip_low(V a, V b) { return SHUFFLE(I, a, b, 0, 4, 1, 5); }
INLINE V zip_high(V a, V b) { return SHUFFLE(I, a, b, 2, 6, 3, 7); }
#endif

/* Lane i of the result is the sum of the lanes of x[i]. */
#define sums NAME(sums)
INLINE V sums(V *x) {
    for (int half = WIDTH / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            x[i] = zip_low(x[i], x[i + half]) + zip_high(x[i], x[i + half]);
    return x[0];
}

#define transpose NAME(transpose)
INLINE void transpose(V *x) {
    V y[WIDTH];
    for (int step = 1; step < WIDTH; step *= 2) {
        for (int i = 0; i < WIDTH / 2; i++) {
            y[2 * i] = zip_low(x[i], x[i + WIDTH / 2]);
            y[2 * i + 1] = zip_high(x[i], x[i + WIDTH / 2]);
        }
        memcpy(x, y, sizeof y);
    }
}

/* 2**x for |x| <= 1/2, relative error of the polynomial 2e-8 (weighted minimax with p(0) = 1). */
#define exp2_small NAME(exp2_small)
INLINE V exp2_small(V x) {
    V p = 0x1.41fbaep-13f * x + 0x1.5f3e6ap-10f;
    p = p * x + 0x1.3b2d4ep-7f;
    p = p * x + 0x1.c6aee8p-5f;
    p = p * x + 0x1.ebfbdcp-3f;
    p = p * x + 0x1.62e430p-1f;
    return p * x + 1.0f;
}

/* Parts of 2**x: x within bounds, its nearest integer k, and p * 2**k (0 below the normal numbers; NaN stays). */
#define bounded NAME(bounded)
#define nearest NAME(nearest)
#define scale NAME(scale)
#if WIDTH == 16
INLINE V bounded(V x) { return x; }
INLINE V nearest(V x) { return (V)_mm512_roundscale_ps((__m512)x, 0); }
INLINE V scale(V p, V k) { return (V)_mm512_scalef_ps((__m512)p, (__m512)k); }
#else
#define ROUND 0x1.8p23f /* the unit of floats of this size is 1, so adding it rounds */
INLINE V bounded(V x) {
    V low = x * 0 - 127.0f, high = x * 0 + 128.0f;
    return select(x < low, low, select(x > high, high, x));
}
INLINE V nearest(V x) { return (x + ROUND) - ROUND; }
INLINE V scale(V p, V k) { return p * (V)((I)(k + (ROUND + 127.0f)) << 23); }
#undef ROUND
#endif

#define exp2_of NAME(exp2_of)
INLINE V exp2_of(V x) {
    x = bounded(x);
    V k = nearest(x);
    return scale(exp2_small(x - k), k);
}

/* e**-|x|. ln 2 in two parts, the first of few bits, so that the remainder is exact. */
#define decay_of NAME(decay_of)
INLINE V decay_of(V x) {
    x = select(x < 0, x, -x);
    x = select(x < -88.0f, x * 0 - 88.0f, x);
    V k = nearest(x * LOG2E);
    V rest = (x - k * 0.693359375f) + k * 2.12194440e-4f;
    return scale(exp2_small(rest * LOG2E), k);
}

/* 1 / (1 + exp(-x)), and the same of -x, each to full relative accuracy. */
#define sigmoid NAME(sigmoid)
INLINE V sigmoid(V x, V *other) {
    V e = decay_of(x);
    V large = 1.0f / (1.0f + e), small = e * large;
    *other = select(x < 0, large, small);
    return select(x < 0, small, large);
}

/* log(1 + exp(x)) = max(x, 0) + 2 artanh(e / (2 + e)) with e = exp(-|x|). */
#define log1p_exp NAME(log1p_exp)
INLINE V log1p_exp(V x) {
    V e = decay_of(x);
    V s = e / (2.0f + e), q = s * s;
    V p = 0.1401223f * q + 0.1399957f;
    p = p * q + 0.2001085f;
    p = p * q + 0.33333207f;
    return select(x < 0, x * 0, x) + 2.0f * (s + s * q * p);
}

/* x[0:count], zeros behind it up to `padded`. */
#define read_row NAME(read_row)
INLINE void read_row(float *row, const float *x, int64_t count, int64_t padded) {
    memcpy(row, x, count * sizeof *x);
    for (int64_t t = count; t < padded; t++)
        row[t] = 0;
}

/* Step size of a chunk after bias and softplus; `slope`, where wanted, is its derivative. */
#define read_delta NAME(read_delta)
INLINE void read_delta(float *row, float *slope, const Scan *s, int64_t channel, const float *x, int64_t count,
                       int64_t padded) {
    float bias = s->delta_bias ? s->delta_bias[channel] : 0;
    read_row(row, x, count, padded);
    for (int64_t t = 0; t < padded; t += WIDTH) {
        V d = load(row + t) + bias, ignored;
        if (slope)
            store(slope + t, s->softplus ? sigmoid(d, &ignored) : d * 0 + 1.0f);
        store(row + t, s->softplus ? log1p_exp(d) : d);
    }
    for (int64_t t = count; t < padded; t++)
        row[t] = 0;
}

/* (N, L) to (tokens, WIDTH) for the tokens start .. start + count and the states first .. first + WIDTH. */
#define read_states NAME(read_states)
INLINE void read_states(float *out, const float *x, const Scan *s, int64_t first, int64_t start, int64_t count) {
    for (int64_t t = 0; t < count; t += WIDTH) {
        V tile[WIDTH];
        int64_t tokens = count - t < WIDTH ? count - t : WIDTH;
        memset(tile, 0, sizeof tile);
        for (int64_t n = 0; n < WIDTH && first + n < s->states; n++)
            memcpy(tile + n, x + (first + n) * s->length + start + t, tokens * sizeof *x);
        transpose(tile);
        memcpy(out + t * WIDTH, tile, sizeof tile);
    }
}

/* The way back; the first task of a group writes, the others add. */
#define add_states NAME(add_states)
INLINE void add_states(float *x, const float *in, const Scan *s, int add, int64_t first, int64_t start, int64_t count) {
    for (int64_t t = 0; t < count; t += WIDTH) {
        V tile[WIDTH];
        int64_t tokens = count - t < WIDTH ? count - t : WIDTH;
        memcpy(tile, in + t * WIDTH, sizeof tile);
        transpose(tile);
        for (int64_t n = 0; n < WIDTH && first + n < s->states; n++) {
            float *row = x + (first + n) * s->length + start + t;
            for (int64_t i = 0; i < tokens; i++)
                row[i] = add ? row[i] + tile[n][i] : tile[n][i];
        }
    }
}

#define forward NAME(forward)
static void forward(const Scan *s, Task task, float *scratch) {
    int64_t L = s->length, N = s->states, blocks = (N + WIDTH - 1) / WIDTH, padded_states = blocks * WIDTH;
    int64_t channels = task.last - task.first, chunks = (L + CHUNK - 1) / CHUNK;
    float *Bt = scratch, *Ct = Bt + CHUNK * padded_states;
    float *A2 = Ct + CHUNK * padded_states, *state = A2 + channels * padded_states;
    float *delta = state + channels * padded_states, *du = delta + CHUNK, *u = du + CHUNK, *z = u + CHUNK;
    float *y = z + CHUNK;
    const float *B = s->B + task.group * N * L, *C = s->C + task.group * N * L;

    memset(A2, 0, 2 * channels * padded_states * sizeof *A2);
    for (int64_t c = 0; c < channels; c++)
        for (int64_t n = 0; n < N; n++)
            A2[c * padded_states + n] = s->A[(task.first + c) * N + n] * LOG2E;

    for (int64_t k = 0; k < chunks; k++) {
        int64_t start = k * CHUNK, count = L - start < CHUNK ? L - start : CHUNK;
        int64_t padded = (count + WIDTH - 1) / WIDTH * WIDTH;
        for (int64_t j = 0; j < blocks; j++) {
            read_states(Bt + j * CHUNK * WIDTH, B, s, j * WIDTH, start, count);
            read_states(Ct + j * CHUNK * WIDTH, C, s, j * WIDTH, start, count);
        }
        for (int64_t c = 0; c < channels; c++) {
            int64_t channel = task.first + c, row = task.batch * s->channels + channel, here = row * L + start;
            memcpy(s->starts + (row * chunks + k) * N, state + c * padded_states, N * sizeof *state);
            read_delta(delta, NULL, s, channel, s->delta + here, count, padded);
            read_row(u, s->u + here, count, padded);
            float skip = s->D ? s->D[channel] : 0;
            for (int64_t t = 0; t < padded; t += WIDTH) {
                store(du + t, load(delta + t) * load(u + t));
                store(y + t, load(u + t) * skip);
            }
            for (int64_t j = 0; j < blocks; j++) {
                const float *b = Bt + j * CHUNK * WIDTH, *cc = Ct + j * CHUNK * WIDTH;
                V a = load(A2 + c * padded_states + j * WIDTH), h = load(state + c * padded_states + j * WIDTH);
                for (int64_t t = 0; t < padded; t += WIDTH) {
                    V products[WIDTH];
                    for (int i = 0; i < WIDTH; i++) {
                        h = exp2_of(a * delta[t + i]) * h + load(b + (t + i) * WIDTH) * du[t + i];
                        products[i] = h * load(cc + (t + i) * WIDTH);
                    }
                    store(y + t, load(y + t) + sums(products));
                }
                store(state + c * padded_states + j * WIDTH, h);
            }
            if (s->z) {
                read_row(z, s->z + here, count, padded);
                for (int64_t t = 0; t < padded; t += WIDTH) {
                    V x = load(z + t), ignored;
                    store(y + t, load(y + t) * x * sigmoid(x, &ignored));
                }
            }
            memcpy(s->y + here, y, count * sizeof *y);
        }
    }
    for (int64_t c = 0; c < channels; c++)
        memcpy(s->last + (task.batch * s->channels + task.first + c) * N, state + c * padded_states, N * sizeof *state);
}

#define backward NAME(backward)
static void backward(const Scan *s, Task task, float *scratch) {
    int64_t L = s->length, N = s->states, blocks = (N + WIDTH - 1) / WIDTH, padded_states = blocks * WIDTH;
    int64_t channels = task.last - task.first, chunks = (L + CHUNK - 1) / CHUNK;
    float *Bt = scratch, *Ct = Bt + CHUNK * padded_states, *dBt = Ct + CHUNK * padded_states;
    float *dCt = dBt + CHUNK * padded_states;
    float *A2 = dCt + CHUNK * padded_states, *carried = A2 + channels * padded_states;
    float *dA = carried + channels * padded_states, *dD = dA + channels * padded_states;
    float *dbias = dD + channels * WIDTH, *h = dbias + channels * WIDTH, *decay = h + (CHUNK + 1) * WIDTH;
    float *delta = decay + CHUNK * WIDTH, *slope = delta + CHUNK, *u = slope + CHUNK, *du = u + CHUNK;
    float *z = du + CHUNK, *dz = z + CHUNK, *y = dz + CHUNK, *dy = y + CHUNK;
    float *at_du = dy + CHUNK, *at_decay = at_du + CHUNK;
    int64_t at_group = task.group * N * L;

    memset(A2, 0, channels * (3 * padded_states + 2 * WIDTH) * sizeof *A2);
    for (int64_t c = 0; c < channels; c++) {
        int64_t channel = task.first + c;
        for (int64_t n = 0; n < N; n++) {
            A2[c * padded_states + n] = s->A[channel * N + n] * LOG2E;
            carried[c * padded_states + n] = s->grad_last[(task.batch * s->channels + channel) * N + n];
        }
    }

    for (int64_t k = chunks - 1; k >= 0; k--) {
        int64_t start = k * CHUNK, count = L - start < CHUNK ? L - start : CHUNK;
        int64_t padded = (count + WIDTH - 1) / WIDTH * WIDTH;
        for (int64_t j = 0; j < blocks; j++) {
            read_states(Bt + j * CHUNK * WIDTH, s->B + at_group, s, j * WIDTH, start, count);
            read_states(Ct + j * CHUNK * WIDTH, s->C + at_group, s, j * WIDTH, start, count);
        }
        memset(dBt, 0, 2 * CHUNK * padded_states * sizeof *dBt);

        for (int64_t c = 0; c < channels; c++) {
            int64_t channel = task.first + c, row = task.batch * s->channels + channel, here = row * L + start;
            read_delta(delta, slope, s, channel, s->delta + here, count, padded);
            read_row(u, s->u + here, count, padded);
            read_row(dy, s->grad_y + here, count, padded);
            float skip = s->D ? s->D[channel] : 0;
            for (int64_t t = 0; t < padded; t += WIDTH) {
                store(du + t, load(delta + t) * load(u + t));
                store(y + t, load(u + t) * skip);
                store(at_du + t, load(u + t) * 0);
                store(at_decay + t, load(u + t) * 0);
            }
            if (s->z) {
                read_row(z, s->z + here, count, padded);
                for (int64_t t = 0; t < padded; t += WIDTH) {
                    V x = load(z + t), other, p = sigmoid(x, &other), g = load(dy + t);
                    store(dz + t, g * p * (1.0f + x * other));
                    store(dy + t, g * x * p);
                }
            }
            for (int64_t j = 0; j < blocks; j++) {
                const float *b = Bt + j * CHUNK * WIDTH, *cc = Ct + j * CHUNK * WIDTH;
                float *db = dBt + j * CHUNK * WIDTH, *dc = dCt + j * CHUNK * WIDTH;
                V a = load(A2 + c * padded_states + j * WIDTH), x = a * 0;
                int64_t present = N - j * WIDTH < WIDTH ? N - j * WIDTH : WIDTH;
                memcpy(&x, s->starts + (row * chunks + k) * N + j * WIDTH, present * sizeof *h);
                store(h, x);
                for (int64_t t = 0; t < padded; t += WIDTH) {
                    V products[WIDTH];
                    for (int i = 0; i < WIDTH; i++) {
                        V e = exp2_of(a * delta[t + i]);
                        store(decay + (t + i) * WIDTH, e);
                        x = e * x + load(b + (t + i) * WIDTH) * du[t + i];
                        store(h + (t + i + 1) * WIDTH, x);
                        products[i] = x * load(cc + (t + i) * WIDTH);
                    }
                    if (s->z)
                        store(y + t, load(y + t) + sums(products));
                }
                V g = load(carried + c * padded_states + j * WIDTH), da = a * 0;
                for (int64_t t = padded - WIDTH; t >= 0; t -= WIDTH) {
                    V at_b[WIDTH], at_a[WIDTH];
                    for (int i = WIDTH - 1; i >= 0; i--) {
                        int64_t v = (t + i) * WIDTH;
                        g += load(cc + v) * dy[t + i];
                        store(dc + v, load(dc + v) + load(h + v + WIDTH) * dy[t + i]);
                        store(db + v, load(db + v) + g * du[t + i]);
                        at_b[i] = g * load(b + v);
                        g *= load(decay + v);
                        V q = g * load(h + v);
                        da += q * delta[t + i];
                        at_a[i] = q * a;
                    }
                    store(at_du + t, load(at_du + t) + sums(at_b));
                    store(at_decay + t, load(at_decay + t) + sums(at_a));
                }
                store(carried + c * padded_states + j * WIDTH, g);
                float *total = dA + c * padded_states + j * WIDTH;
                store(total, load(total) + da);
            }
            V skipped = load(dD + c * WIDTH), bias = load(dbias + c * WIDTH);
            for (int64_t t = 0; t < padded; t += WIDTH) {
                V g = load(at_du + t), x = load(u + t), p = load(dy + t);
                V step = (load(at_decay + t) * LN2 + g * x) * load(slope + t);
                store(at_decay + t, step);
                store(at_du + t, g * load(delta + t) + p * skip);
                if (s->z)
                    store(dz + t, load(dz + t) * load(y + t));
                skipped += p * x;
                if (t + WIDTH <= count)
                    bias += step;
                else
                    for (int64_t i = t; i < count; i++)
                        bias[i - t] += step[i - t];
            }
            store(dD + c * WIDTH, skipped);
            store(dbias + c * WIDTH, bias);
            memcpy(s->grad_u + here, at_du, count * sizeof *u);
            memcpy(s->grad_delta + here, at_decay, count * sizeof *u);
            if (s->z)
                memcpy(s->grad_z + here, dz, count * sizeof *u);
        }

        wait_for_turn(task, k);
        for (int64_t j = 0; j < blocks; j++) {
            add_states(s->grad_B + at_group, dBt + j * CHUNK * WIDTH, s, task.turn > 0, j * WIDTH, start, count);
            add_states(s->grad_C + at_group, dCt + j * CHUNK * WIDTH, s, task.turn > 0, j * WIDTH, start, count);
        }
        end_turn(task, k);
    }
    for (int64_t c = 0; c < channels; c++) {
        int64_t row = task.batch * s->channels + task.first + c;
        memcpy(s->grad_A + row * N, dA + c * padded_states, N * sizeof *dA);
        s->grad_D[row] = s->grad_bias[row] = 0;
        for (int i = 0; i < WIDTH; i++) {
            s->grad_D[row] += dD[c * WIDTH + i];
            s->grad_bias[row] += dbias[c * WIDTH + i];
        }
    }
}
