/* Forward and backward of the selective scan in one instruction set; _cpu_scan.c includes this file once for each.
 *
 * A vector holds WIDTH states of one channel, so the recurrence of a token is a few vector operations; more states are
 * further passes over the same chunk of tokens. Sums over states (y, and the gradients at u and delta) take WIDTH
 * tokens at a time. The arrays may lie in memory channel by channel or token by token: a chunk of B and C is copied to
 * (tokens, WIDTH) once for all channels of a task, one of the others to (channels, tokens) unless it lies so. Missing
 * states and tokens are zeros, which change nothing: exp(0) = 1 keeps the state and B = C = 0 adds none.
 */

#include "_cpu_scan_vector.h"

/* A chunk of B or C as (tokens, WIDTH), for one vector of states after the other. */
#define read_states NAME(read_states)
INLINE void read_states(float *out, Array x, int64_t states, Task task, Chunk k) {
    for (int64_t n = 0; n < states; n += WIDTH)
        gather(out + n * CHUNK, WIDTH, states_at(x, task, k, n), x.token, x.row, k.count, min(states - n, WIDTH));
}

/* The way back for a gradient: the first task of a group writes, the others add. */
#define add_states NAME(add_states)
INLINE void add_states(Array x, const float *in, int64_t states, Task task, Chunk k) {
    for (int64_t n = 0; n < states; n += WIDTH)
        scatter(states_at(x, task, k, n), x.token, x.row, in + n * CHUNK, WIDTH, k.count, min(states - n, WIDTH),
                task.turn > 0);
}

/* A chunk of the task's channels as rows of tokens: in place, or a copy that `put_back` brings to its place. */
#define rows_of NAME(rows_of)
INLINE Rows rows_of(Array x, Task task, Chunk k, float *copy) {
    Rows rows = room_for(x, task, k, copy);
    if (rows.copied)
        gather(copy, CHUNK, at(x, task, k), x.row, x.token, task.channels, k.count);
    return rows;
}

#define put_back NAME(put_back)
INLINE void put_back(Rows rows, Task task) {
    Array x = rows.array;
    if (rows.copied)
        scatter(at(x, task, rows.chunk), x.row, x.token, rows.first, CHUNK, task.channels, rows.chunk.count, 0);
}

/* Step sizes of a chunk after bias and softplus; `slope`, where wanted, is the derivative. */
#define read_delta NAME(read_delta)
INLINE void read_delta(float *delta, float *slope, const float *x, float bias, int64_t with_softplus, Chunk k) {
    for (int64_t t = 0; t < k.padded; t += WIDTH) {
        V d = load(x + t) + bias, ignored;
        if (slope)
            store(slope + t, with_softplus ? sigmoid(d, &ignored) : all_of(1));
        store(delta + t, with_softplus ? log1p_exp(d) : d);
    }
    for (int64_t t = k.count; t < k.padded; t++) {
        delta[t] = 0;
        if (slope)
            slope[t] = 0;
    }
}

/* The recurrence of a chunk from state h. Adds C h to `y`; keeps the decays in `e` and in `states` the states, that
 * before the chunk in front; each only where wanted. */
#define recur NAME(recur)
INLINE V recur(V h, V a, const float *delta, const float *du, const float *b, const float *c, int64_t tokens, float *y,
               float *e, float *states, const Ahead *ahead) {
    if (states)
        store(states, h);
    for (int64_t t = 0; t < tokens; t += WIDTH) {
        V decay[TOGETHER], ch[WIDTH];
        fetch(ahead, t);
        UNROLL
        for (int i = 0; i < WIDTH; i++) {
            int64_t at = (t + i) * WIDTH;
            if (i % TOGETHER == 0)
                decays(decay, a, delta + t + i);
            h = decay[i % TOGETHER] * h + load(b + at) * du[t + i];
            if (states) {
                store(e + at, decay[i % TOGETHER]);
                store(states + at + WIDTH, h);
            }
            if (y)
                ch[i] = h * load(c + at);
        }
        if (y)
            store(y + t, load(y + t) + sums(ch));
    }
    return h;
}

/* The adjoint recurrence of a chunk from the gradient g at the state behind it. Adds to the gradients at B and C, at
 * the product delta * u (`at_du`), at delta through the exponent a * delta alone (`at_delta`), and at a (`at_a`). */
#define recur_back NAME(recur_back)
INLINE V recur_back(V g, V a, const float *delta, const float *du, const float *dy, const float *b, const float *c,
                    const float *e, const float *states, int64_t tokens, float *db, float *dc, float *at_du,
                    float *at_delta, float *at_a, const Ahead *ahead) {
    V h = load(states + tokens * WIDTH), sum = all_of(0);
    for (int64_t t = tokens - WIDTH; t >= 0; t -= WIDTH) {
        V bg[WIDTH], aq[WIDTH];
        fetch(ahead, t);
        UNROLL
        for (int i = WIDTH - 1; i >= 0; i--) {
            int64_t at = (t + i) * WIDTH;
            V decay = load(e + at), cy = load(c + at) * dy[t + i], here = g + cy;
            store(dc + at, load(dc + at) + h * dy[t + i]);
            store(db + at, load(db + at) + here * du[t + i]);
            bg[i] = here * load(b + at);
            g = decay * g + decay * cy; /* not decay * here: the next token waits for one operation, not for two */
            h = load(states + at);
            V q = g * h;
            sum += q * delta[t + i];
            aq[i] = q * a;
        }
        store(at_du + t, load(at_du + t) + sums(bg));
        store(at_delta + t, load(at_delta + t) + sums(aq));
    }
    store(at_a, load(at_a) + sum);
    return g;
}

#define forward NAME(forward)
static void forward(const Scan *s, Task task, float *scratch) {
    int64_t N = s->states, lanes = round_up(N, WIDTH), channels = task.channels, chunks = chunks_of(s);
    float *Bt = take(&scratch, CHUNK * lanes), *Ct = take(&scratch, CHUNK * lanes);
    float *A = take(&scratch, SLICE * lanes), *state = take(&scratch, SLICE * lanes);
    float *delta = take(&scratch, CHUNK), *du = take(&scratch, CHUNK), *copies[4];
    for (int i = 0; i < 4; i++)
        copies[i] = take(&scratch, SLICE * CHUNK);

    gather(A, lanes, s->A + task.channel * N, N, 1, channels, N);
    memset(state, 0, SLICE * lanes * sizeof *state);
    for (int64_t i = 0; i < chunks; i++) {
        Chunk k = chunk_of(s, i, WIDTH);
        read_states(Bt, s->B, N, task, k);
        read_states(Ct, s->C, N, task, k);
        scatter(s->starts + (task.row * chunks + i) * N, chunks * N, 1, state, lanes, channels, N, 0);
        Rows u_rows = rows_of(s->u, task, k, copies[0]), delta_rows = rows_of(s->delta, task, k, copies[1]);
        Rows z_rows = s->z.data ? rows_of(s->z, task, k, copies[2]) : u_rows;
        Rows y_rows = room_for(s->y, task, k, copies[3]);
        for (int64_t c = 0; c < channels; c++) {
            const float *u = row_of(u_rows, c), *z = row_of(z_rows, c);
            float *y = row_of(y_rows, c), skip = s->D ? s->D[task.channel + c] : 0;
            float bias = s->delta_bias ? s->delta_bias[task.channel + c] : 0;
            const Ahead ahead[] = {next_rows(u_rows, task, c, 1), next_rows(delta_rows, task, c, 1),
                                   next_rows(z_rows, task, c, 1), next_rows(y_rows, task, c, 1),
                                   next_states(s->B, task, k, c, 1), next_states(s->C, task, k, c, 1)};
            read_delta(delta, NULL, row_of(delta_rows, c), bias, s->softplus, k);
            for (int64_t t = 0; t < k.padded; t += WIDTH) {
                store(du + t, load(delta + t) * load(u + t));
                store(y + t, skip * load(u + t));
            }
            for (int64_t n = 0; n < N; n += WIDTH) {
                V a = LOG2E * load(A + c * lanes + n), h = load(state + c * lanes + n);
                h = recur(h, a, delta, du, Bt + n * CHUNK, Ct + n * CHUNK, k.padded, y, NULL, NULL, ahead);
                store(state + c * lanes + n, h);
            }
            for (int64_t t = 0; s->z.data && t < k.padded; t += WIDTH) {
                V x = load(z + t), ignored;
                store(y + t, load(y + t) * x * sigmoid(x, &ignored));
            }
        }
        put_back(y_rows, task);
    }
    scatter(s->last + task.row * N, N, 1, state, lanes, channels, N, 0);
}

#define backward NAME(backward)
static void backward(const Scan *s, Task task, float *scratch) {
    int64_t N = s->states, lanes = round_up(N, WIDTH), channels = task.channels, chunks = chunks_of(s);
    float *Bt = take(&scratch, CHUNK * lanes), *Ct = take(&scratch, CHUNK * lanes);
    float *dBt = take(&scratch, CHUNK * lanes), *dCt = take(&scratch, CHUNK * lanes);
    float *A = take(&scratch, SLICE * lanes), *start = take(&scratch, SLICE * lanes);
    float *carried = take(&scratch, SLICE * lanes), *dA = take(&scratch, SLICE * lanes);
    float *dD = take(&scratch, SLICE * WIDTH), *dbias = take(&scratch, SLICE * WIDTH);
    float *states = take(&scratch, (CHUNK + 1) * WIDTH), *e = take(&scratch, CHUNK * WIDTH);
    float *delta = take(&scratch, CHUNK), *slope = take(&scratch, CHUNK), *du = take(&scratch, CHUNK);
    float *y = take(&scratch, CHUNK), *dy = take(&scratch, CHUNK), *at_du = take(&scratch, CHUNK);
    float *at_delta = take(&scratch, CHUNK), *copies[7];
    for (int i = 0; i < 7; i++)
        copies[i] = take(&scratch, SLICE * CHUNK);

    gather(A, lanes, s->A + task.channel * N, N, 1, channels, N);
    gather(carried, lanes, s->grad_last + task.row * N, N, 1, channels, N);
    memset(dA, 0, SLICE * lanes * sizeof *dA);
    memset(dD, 0, SLICE * WIDTH * sizeof *dD);
    memset(dbias, 0, SLICE * WIDTH * sizeof *dbias);
    for (int64_t i = chunks - 1; i >= 0; i--) {
        Chunk k = chunk_of(s, i, WIDTH);
        read_states(Bt, s->B, N, task, k);
        read_states(Ct, s->C, N, task, k);
        memset(dBt, 0, CHUNK * lanes * sizeof *dBt);
        memset(dCt, 0, CHUNK * lanes * sizeof *dCt);
        gather(start, lanes, s->starts + (task.row * chunks + i) * N, chunks * N, 1, channels, N);
        Rows u_rows = rows_of(s->u, task, k, copies[0]), delta_rows = rows_of(s->delta, task, k, copies[1]);
        Rows z_rows = s->z.data ? rows_of(s->z, task, k, copies[2]) : u_rows;
        Rows dy_rows = rows_of(s->grad_y, task, k, copies[3]);
        Rows grad_u = room_for(s->grad_u, task, k, copies[4]), grad_delta = room_for(s->grad_delta, task, k, copies[5]);
        Rows grad_z = s->z.data ? room_for(s->grad_z, task, k, copies[6]) : grad_u;
        for (int64_t c = 0; c < channels; c++) {
            const float *u = row_of(u_rows, c), *z = row_of(z_rows, c), *grad_y = row_of(dy_rows, c);
            float *dz = row_of(grad_z, c), skip = s->D ? s->D[task.channel + c] : 0;
            float bias = s->delta_bias ? s->delta_bias[task.channel + c] : 0;
            const Ahead inputs[] = {next_rows(u_rows, task, c, -1), next_rows(delta_rows, task, c, -1),
                                    next_rows(z_rows, task, c, -1), next_rows(dy_rows, task, c, -1),
                                    next_states(s->B, task, k, c, -1), next_states(s->C, task, k, c, -1)};
            const Ahead outputs[] = {next_rows(grad_u, task, c, -1), next_rows(grad_delta, task, c, -1),
                                     next_rows(grad_z, task, c, -1), next_states(s->grad_B, task, k, c, 0),
                                     next_states(s->grad_C, task, k, c, 0),
                                     {s->starts + ((task.row + c) * chunks + i - 1) * N, 0}};
            read_delta(delta, slope, row_of(delta_rows, c), bias, s->softplus, k);
            for (int64_t t = 0; t < k.padded; t += WIDTH) {
                V g = load(grad_y + t), x = load(u + t);
                store(du + t, load(delta + t) * x);
                store(y + t, x * skip);
                store(at_du + t, all_of(0));
                store(at_delta + t, all_of(0));
                if (s->z.data) {
                    V v = load(z + t), other, p = sigmoid(v, &other);
                    store(dz + t, g * p * (1.0f + v * other));
                    g *= v * p;
                }
                store(dy + t, g);
            }
            for (int64_t n = 0; n < N; n += WIDTH) {
                int64_t here = c * lanes + n;
                const float *b = Bt + n * CHUNK, *cc = Ct + n * CHUNK;
                V a = LOG2E * load(A + here), h = load(start + here);
                if (s->z.data)
                    recur(h, a, delta, du, b, cc, k.padded, y, e, states, inputs);
                else
                    recur(h, a, delta, du, b, cc, k.padded, NULL, e, states, inputs);
                V g = recur_back(load(carried + here), load(A + here), delta, du, dy, b, cc, e, states, k.padded,
                                 dBt + n * CHUNK, dCt + n * CHUNK, at_du, at_delta, dA + here, outputs);
                store(carried + here, g);
            }
            V dD_sum = load(dD + c * WIDTH), dbias_sum = load(dbias + c * WIDTH);
            for (int64_t t = 0; t < k.padded; t += WIDTH) {
                V g = load(at_du + t), x = load(u + t), p = load(dy + t);
                V step = (load(at_delta + t) + g * x) * load(slope + t);
                store(row_of(grad_delta, c) + t, step);
                store(row_of(grad_u, c) + t, g * load(delta + t) + p * skip);
                if (s->z.data)
                    store(dz + t, load(dz + t) * load(y + t));
                dD_sum += p * x;
                dbias_sum += step;
            }
            store(dD + c * WIDTH, dD_sum);
            store(dbias + c * WIDTH, dbias_sum);
        }
        put_back(grad_u, task);
        put_back(grad_delta, task);
        if (s->z.data)
            put_back(grad_z, task);

        wait_for_turn(task, i);
        add_states(s->grad_B, dBt, N, task, k);
        add_states(s->grad_C, dCt, N, task, k);
        end_turn(task, i);
    }
    scatter(s->grad_A + task.row * N, N, 1, dA, lanes, channels, N, 0);
    for (int64_t c = 0; c < channels; c++) {
        s->grad_D[task.row + c] = sum_of(dD + c * WIDTH);
        s->grad_delta_bias[task.row + c] = sum_of(dbias + c * WIDTH);
    }
}
