/* Causal depthwise convolution and SiLU in one instruction set, forward and backward; _cpu_scan.c includes this file
 * behind _cpu_scan_kernel.h, once for each.
 *
 *     y[t] = silu(v[t])     v[t] = bias + sum over k < taps of weight[k] * u[t - (taps - 1) + k]
 *
 * where u is zero before the first token. A task and its chunks are those of the scan. Rows of u have FRAME tokens more,
 * those before the chunk; rows of the gradient at v those behind it.
 */

/* v of WIDTH tokens, of which `u` is the first. */
#define convolved NAME(convolved)
INLINE V convolved(const float *u, const float *weight, int64_t taps, float bias) {
    V v = all_of(bias);
    for (int64_t k = 0; k < taps; k++)
        v += weight[k] * load(u + k - (taps - 1));
    return v;
}

#define convolve NAME(convolve)
static void convolve(const Scan *s, Task task, float *scratch) {
    int64_t taps = s->taps, channels = task.channels, chunks = chunks_of(s);
    float *u = take(&scratch, SLICE * PITCH), *copy = take(&scratch, SLICE * CHUNK);
    memset(u, 0, SLICE * PITCH * sizeof *u);
    for (int64_t i = 0; i < chunks; i++) {
        Chunk k = chunk_of(s, i, WIDTH);
        gather(u + FRAME, PITCH, at(s->u, task, k), s->u.row, s->u.token, channels, k.count);
        Rows y_rows = room_for(s->y, task, k, copy);
        for (int64_t c = 0; c < channels; c++) {
            float *row = u + c * PITCH + FRAME, *y = row_of(y_rows, c);
            const float *weight = s->weight + (task.channel + c) * taps;
            for (int64_t t = 0; t < k.padded; t += WIDTH) {
                V v = convolved(row + t, weight, taps, s->bias[task.channel + c]), ignored;
                store(y + t, v * sigmoid(v, &ignored));
            }
            memcpy(row - FRAME, row + CHUNK - FRAME, FRAME * sizeof *row);
        }
        put_back(y_rows, task);
    }
}

#define convolve_back NAME(convolve_back)
static void convolve_back(const Scan *s, Task task, float *scratch) {
    int64_t taps = s->taps, channels = task.channels;
    float *u = take(&scratch, SLICE * PITCH), *dv = take(&scratch, SLICE * PITCH), *copies[2];
    float *dweight = take(&scratch, SLICE * (FRAME + 1) * WIDTH), *dbias = take(&scratch, SLICE * WIDTH);
    for (int i = 0; i < 2; i++)
        copies[i] = take(&scratch, SLICE * CHUNK);
    memset(dv, 0, SLICE * PITCH * sizeof *dv);
    memset(dweight, 0, SLICE * (FRAME + 1) * WIDTH * sizeof *dweight);
    memset(dbias, 0, SLICE * WIDTH * sizeof *dbias);
    for (int64_t i = chunks_of(s) - 1; i >= 0; i--) {
        Chunk k = chunk_of(s, i, WIDTH);
        const float *first = at(s->u, task, k);
        if (i)
            gather(u, PITCH, first - FRAME * s->u.token, s->u.row, s->u.token, channels, FRAME);
        else
            memset(u, 0, SLICE * PITCH * sizeof *u);
        gather(u + FRAME, PITCH, first, s->u.row, s->u.token, channels, k.count);
        Rows dy_rows = rows_of(s->grad_y, task, k, copies[0]), du_rows = room_for(s->grad_u, task, k, copies[1]);
        for (int64_t c = 0; c < channels; c++) {
            float *row = u + c * PITCH + FRAME, *g = dv + c * PITCH, *du = row_of(du_rows, c);
            const float *dy = row_of(dy_rows, c), *weight = s->weight + (task.channel + c) * taps;
            for (int64_t t = 0; t < k.padded; t += WIDTH) {
                V v = convolved(row + t, weight, taps, s->bias[task.channel + c]), other, p = sigmoid(v, &other);
                V here = load(dy + t) * p * (1.0f + v * other);
                store(g + t, here);
                store(dbias + c * WIDTH, load(dbias + c * WIDTH) + here);
                for (int64_t j = 0; j < taps; j++) {
                    float *sum = dweight + (c * (FRAME + 1) + j) * WIDTH;
                    store(sum, load(sum) + here * load(row + t + j - (taps - 1)));
                }
            }
            for (int64_t t = 0; t < k.padded; t += WIDTH) {
                V sum = all_of(0);
                for (int64_t j = 0; j < taps; j++)
                    sum += weight[j] * load(g + t + (taps - 1) - j);
                store(du + t, sum);
            }
            memcpy(g + CHUNK, g, FRAME * sizeof *g);
        }
        put_back(du_rows, task);
    }
    for (int64_t c = 0; c < channels; c++) {
        s->grad_bias[task.row + c] = sum_of(dbias + c * WIDTH);
        for (int64_t j = 0; j < taps; j++)
            s->grad_weight[(task.row + c) * taps + j] = sum_of(dweight + (c * (FRAME + 1) + j) * WIDTH);
    }
}
