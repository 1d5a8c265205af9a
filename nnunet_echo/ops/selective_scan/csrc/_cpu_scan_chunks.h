/* Tasks and their chunks of tokens: where the rows of one lie in memory, which way they are read, what is fetched ahead,
 * and in which order tasks add to what they share. Included by _cpu_scan.c, which has `Array` and `Scan`. */

typedef struct {
    int64_t batch, group, first, channels; /* channels first .. first + channels of the group */
    int64_t channel, row;                  /* the first one, counted over all groups, and over all sequences too */
    int64_t turn;                          /* number of the task in its group */
    _Atomic int64_t *progress;             /* of all tasks of the group: the earliest chunk that is done */
} Task;

typedef struct {
    int64_t start, count, padded; /* tokens; padded to whole vectors */
} Chunk;

typedef struct { /* a chunk of the task's channels, in the array itself or in a copy */
    Array array;
    Chunk chunk;
    float *first;
    int64_t pitch;
    int copied;
} Rows;

typedef struct { /* memory that will be needed soon: lines at a distance, in floats */
    const float *from;
    int64_t step;
} Ahead;

INLINE int64_t chunks_of(const Scan *s) { return (s->length + CHUNK - 1) / CHUNK; }

INLINE Chunk chunk_of(const Scan *s, int64_t i, int64_t width) {
    Chunk k = {i * CHUNK, min(CHUNK, s->length - i * CHUNK), 0};
    k.padded = round_up(k.count, width);
    return k;
}

INLINE float *states_at(Array x, Task task, Chunk k, int64_t state) {
    return x.data + task.batch * x.batch + task.group * x.group + state * x.row + k.start * x.token;
}

INLINE float *at(Array x, Task task, Chunk k) { return states_at(x, task, k, task.first); }

INLINE Rows room_for(Array x, Task task, Chunk k, float *copy) {
    if (x.token == 1 && k.count == k.padded)
        return (Rows){x, k, at(x, task, k), x.row, 0};
    return (Rows){x, k, copy, CHUNK, 1};
}

INLINE float *row_of(Rows rows, int64_t c) { return rows.first + c * rows.pitch; }

/* What to fetch while channel c is computed: rows in place one by one, of other arrays a share of the next chunk. The
 * hardware does not see these patterns. Addresses outside of an array do no harm. */
INLINE Ahead next_share(Array x, const float *chunk, Task task, int64_t c) {
    if (is_one(x.token))
        return (Ahead){chunk + c * x.row, 16 * x.token};
    return (Ahead){chunk + c * (CHUNK / task.channels) * x.token, x.token};
}

INLINE Ahead next_rows(Rows rows, Task task, int64_t c, int64_t direction) {
    if (!rows.copied && c + 1 < task.channels)
        return (Ahead){row_of(rows, c + 1), 16};
    const float *next = at(rows.array, task, rows.chunk) + direction * CHUNK * rows.array.token;
    return rows.copied ? next_share(rows.array, next, task, c) : (Ahead){next, 16};
}

INLINE Ahead next_states(Array x, Task task, Chunk k, int64_t c, int64_t direction) {
    return next_share(x, states_at(x, task, k, 0) + direction * CHUNK * x.token, task, c);
}

INLINE void fetch(const Ahead *ahead, int64_t t) {
    for (int i = 0; i < 6; i++)
        __builtin_prefetch(ahead[i].from + t / 16 * ahead[i].step);
}

/* Without a copy: the last token becomes the first, and the distance to the next one negative. */
static void turn_around(Scan *s) {
    Array *all[] = {&s->u, &s->delta, &s->B, &s->C, &s->z, &s->y, &s->grad_y, &s->grad_u, &s->grad_delta, &s->grad_B,
                    &s->grad_C, &s->grad_z};
    for (int i = 0; i < 12; i++)
        if (all[i]->data) {
            all[i]->data += (s->length - 1) * all[i]->token;
            all[i]->token = -all[i]->token;
        }
}

static void wait_for_turn(Task task, int64_t chunk) {
    while (task.turn && atomic_load_explicit(&task.progress[task.turn - 1], memory_order_acquire) > chunk)
        sched_yield();
}

static void end_turn(Task task, int64_t chunk) {
    atomic_store_explicit(&task.progress[task.turn], chunk, memory_order_release);
}
