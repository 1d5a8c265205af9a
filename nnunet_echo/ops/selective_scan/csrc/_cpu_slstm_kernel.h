/* Forward and backward of the sLSTM cell in one instruction set; _cpu_slstm.c includes this file once for each.
 *
 * A vector holds WIDTH channels of one head. Rows are padded to whole lines; what is computed in the padding goes
 * nowhere, since products with R read D channels and results are copied D at a time.
 */

#include "_cpu_scan_vector.h"

/* exp(x) for x <= 0; 1 where x is larger. */
#define exp_to_one NAME(exp_to_one)
INLINE V exp_to_one(V x) { return decay_of(select(x > 0, all_of(0), x)); }

/* Odd series up to 0.3, behind which 1 - exp(-2 |x|) has lost no more than two bits. */
#define tanh_of NAME(tanh_of)
INLINE V tanh_of(V x) {
    V e = decay_of(2.0f * x), large = (1.0f - e) / (1.0f + e), q = x * x;
    V p = q * -8.8632355e-3f + 2.1869488e-2f;
    p = p * q - 5.3968254e-2f;
    p = p * q + 1.3333333e-1f;
    p = p * q - 3.3333333e-1f;
    V small = x + x * q * p;
    return select(magnitude(x) < 0.3f, small, select(x < 0, -large, large));
}

/* out[j] += sum over k < count of x[k] * rows[k][j] for `vectors` vectors j. Each step of a sum waits for the one before,
 * so that every `chains`-th k has a sum of its own. */
#define add_tile NAME(add_tile)
INLINE void add_tile(float *out, const float *x, const float *rows, int64_t count, int64_t pitch, int vectors,
                     int chains) {
    V sum[12];
    int64_t k = 0;
    UNROLL
    for (int i = 0; i < vectors * chains; i++)
        sum[i] = i < vectors ? load(out + i * WIDTH) : all_of(0);
    for (; k + chains <= count; k += chains)
        UNROLL
        for (int i = 0; i < vectors * chains; i++)
            sum[i] += x[k + i / vectors] * load(rows + (k + i / vectors) * pitch + i % vectors * WIDTH);
    for (; k < count; k++)
        UNROLL
        for (int i = 0; i < vectors; i++)
            sum[i] += x[k] * load(rows + k * pitch + i * WIDTH);
    UNROLL
    for (int i = 0; i < vectors; i++) {
        UNROLL
        for (int j = 1; j < chains; j++)
            sum[i] += sum[i + j * vectors];
        store(out + i * WIDTH, sum[i]);
    }
}

#define add_products NAME(add_products)
INLINE void add_products(float *out, const float *x, const float *rows, int64_t count, int64_t columns) {
    int64_t j = 0;
    for (; j + 12 * WIDTH <= columns; j += 12 * WIDTH)
        add_tile(out + j, x, rows + j, count, columns, 12, 1);
    for (; j + 3 * WIDTH <= columns; j += 3 * WIDTH)
        add_tile(out + j, x, rows + j, count, columns, 3, 4);
    for (; j < columns; j += WIDTH)
        add_tile(out + j, x, rows + j, count, columns, 1, 8);
}

#define slstm NAME(slstm)
static void slstm(const Cell *s, Task task, float *scratch) {
    int64_t D = s->size, line = line_of(s);
    float *R = take(&scratch, D * GATES * line), *b = take(&scratch, GATES * line); /* R as (in, gate, out) */
    float *state[STATES], *y, *c, *n, *m;
    for (int j = 0; j < STATES; j++) {
        state[j] = take(&scratch, line);
        copy(state[j], s->initial + state_at(s, task, j), D);
    }
    y = state[0], c = state[1], n = state[2], m = state[3];
    for (int64_t g = 0; g < GATES; g++) {
        copy(b + g * line, s->b + (g * s->heads + task.head) * D, D);
        for (int64_t out = 0; out < D; out++)
            for (int64_t in = 0; in < D; in++)
                R[(in * GATES + g) * line + out] = s->R[((task.head * GATES + g) * D + out) * D + in];
    }
    for (int64_t t = 0; t < s->length; t++) {
        float *a = s->kept + token_at(s, task, t) * KEPT * line, *kept = a + GATES * line;
        memset(a, 0, GATES * line * sizeof *a);
        for (int64_t g = 0; g < GATES; g++)
            copy(a + g * line, s->x + gate_at(s, task, t, g), D);
        for (int64_t j = 0; j < GATES * line; j += WIDTH)
            store(a + j, load(a + j) + load(b + j));
        add_products(a, y, R, D, GATES * line);
        for (int64_t j = 0; j < line; j += WIDTH) {
            V i = load(a + j), l = load(m + j) - log1p_exp(-load(a + line + j)), ignored;
            V largest = s->fresh && t == 0 ? i : select(i < l, l, i);
            V input = exp_to_one(i - largest), forget = exp_to_one(l - largest);
            V now = forget * load(c + j) + input * tanh_of(load(a + 2 * line + j));
            V norm = forget * load(n + j) + input;
            store(c + j, now);
            store(n + j, norm);
            store(m + j, largest);
            store(y + j, sigmoid(load(a + 3 * line + j), &ignored) * (now / norm));
            store(kept + j, now);
            store(kept + line + j, norm);
            store(kept + 2 * line + j, largest);
        }
        copy(s->y + token_at(s, task, t) * D, y, D);
    }
    for (int j = 0; j < STATES; j++)
        copy(s->last + state_at(s, task, j), state[j], D);
}

#define slstm_back NAME(slstm_back)
static void slstm_back(const Cell *s, Task task, float *scratch) {
    int64_t D = s->size, line = line_of(s);
    float *R = take(&scratch, GATES * D * line), *at = take(&scratch, GATES * line); /* R as (gate, out, in) */
    float *before[STATES], *grad[STATES], *gy, *gc, *gn, *gm;
    for (int j = 0; j < STATES; j++) {
        before[j] = take(&scratch, line);
        grad[j] = take(&scratch, line);
        copy(before[j], s->initial + state_at(s, task, j), D);
        copy(grad[j], s->grad_last + state_at(s, task, j), D);
    }
    gy = grad[0], gc = grad[1], gn = grad[2], gm = grad[3];
    for (int64_t row = 0; row < GATES * D; row++)
        copy(R + row * line, s->R + (task.head * GATES * D + row) * D, D);
    float *from_above = take(&scratch, line);
    for (int64_t t = s->length - 1; t >= 0; t--) {
        const float *a = s->kept + token_at(s, task, t) * KEPT * line, *kept = a + GATES * line;
        const float *c0 = t ? kept - KEPT * line : before[1], *n0 = t ? kept - KEPT * line + line : before[2];
        const float *m0 = t ? kept - KEPT * line + 2 * line : before[3];
        copy(from_above, s->grad_y + token_at(s, task, t) * D, D);
        for (int64_t j = 0; j < line; j += WIDTH) {
            V i = load(a + j), f = load(a + line + j), z = tanh_of(load(a + 2 * line + j)), closed, of_f, of_minus_f;
            V l = load(m0 + j) - log1p_exp(-f), open = sigmoid(load(a + 3 * line + j), &closed);
            V c = load(kept + j), n = load(kept + line + j), largest = load(kept + 2 * line + j), h = c / n;
            V input = exp_to_one(i - largest), forget = exp_to_one(l - largest);
            V dy = load(gy + j) + load(from_above + j), dh = dy * open / n, dm = load(gm + j);
            V dc = load(gc + j) + dh, dn = load(gn + j) - dh * h;
            V at_input = (dc * z + dn) * input, at_forget = (dc * load(c0 + j) + dn * load(n0 + j)) * forget;
            at_forget = select(l > largest, all_of(0), at_forget); /* where it is 1 whatever l is */
            /* The maximum's gradient: at i, at l, or half at each. What i' or f' has where it is 1 cancels. */
            V share = s->fresh && t == 0 ? all_of(1) : select(i > l, all_of(1), select(i < l, all_of(0), all_of(0.5f)));
            V at_l = share * at_forget + (1.0f - share) * (dm - at_input);
            of_f = sigmoid(f, &of_minus_f);
            (void)of_f;
            store(at + j, share * (dm - at_forget) + (1.0f - share) * at_input);
            store(at + line + j, at_l * of_minus_f);
            store(at + 2 * line + j, dc * input * (1.0f - z * z));
            store(at + 3 * line + j, dy * h * open * closed);
            store(gc + j, dc * forget);
            store(gn + j, dn * forget);
            store(gm + j, at_l);
            store(gy + j, all_of(0));
        }
        for (int64_t g = 0; g < GATES; g++) {
            copy(s->grad_x + gate_at(s, task, t, g), at + g * line, D);
            add_products(gy, at + g * line, R + g * D * line, D, line);
        }
    }
    for (int j = 0; j < STATES; j++)
        copy(s->grad_initial + state_at(s, task, j), grad[j], D);
}
