/* Selective scan on the CPU, float32, forward and backward: task list, threads, choice of the instruction set.
 *
 * Plain C, no Python and no PyTorch: cpu.py loads the library with ctypes, fills a `Scan` and calls scan_forward or
 * scan_backward without the interpreter lock. Letters and shapes as in nnunet_echo/scan/__init__.py; all arrays are
 * contiguous, those of optional arguments NULL where absent. The kernels are in _cpu_scan_kernel.h.
 *
 * A task is a few channels of one group of one sequence, walked in chunks of tokens. The forward keeps the state at the
 * start of each chunk (`starts`); the backward walks the chunks from the last to the first and recomputes the states
 * inside. B and C are shared by a group, so its tasks add to the same gradients: chunk by chunk and in the order of the
 * tasks, whichever thread runs them. That needs no buffer per thread, and the result does not depend on the threads.
 */

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define CHUNK 64
#define LOG2E 1.44269504f
#define LN2 0.693147181f
#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(I, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(I, a, b, ...) __builtin_shuffle(a, b, (I){__VA_ARGS__})
#endif

typedef struct {
    int64_t batch, channels, groups, states, length;
    int64_t softplus, threads, width; /* width: floats in a vector, 0 for the widest that the processor has */
    const float *u, *delta, *A, *B, *C, *D, *z, *delta_bias;
    float *y, *last, *starts; /* starts (B, D, chunks, N) */
    const float *grad_y, *grad_last;
    float *grad_u, *grad_delta, *grad_B, *grad_C, *grad_z;
    float *grad_A, *grad_D, *grad_bias; /* one for each sequence of the batch: (B, D, N), (B, D), (B, D) */
} Scan;

typedef struct {
    int64_t batch, group, first, last; /* channels first .. last; group counts those of all sequences */
    int64_t turn;                      /* number of the task in its group */
    _Atomic int64_t *progress;         /* of all tasks of the group: the earliest chunk that is done */
} Task;

static void wait_for_turn(Task task, int64_t chunk) {
    while (task.turn && atomic_load_explicit(&task.progress[task.turn - 1], memory_order_acquire) > chunk)
        sched_yield();
}

static void end_turn(Task task, int64_t chunk) {
    atomic_store_explicit(&task.progress[task.turn], chunk, memory_order_release);
}

typedef void Kernel(const Scan *, Task, float *);

#define WIDTH 4
#define NAME(x) x##_4
#include "_cpu_scan_kernel.h"
#undef WIDTH
#undef NAME

#if defined(__x86_64__)
#define PRAGMA(x) _Pragma(#x)
#if defined(__clang__)
#define BEGIN_TARGET(features) PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define END_TARGET PRAGMA(clang attribute pop)
#else
#define BEGIN_TARGET(features) PRAGMA(GCC push_options) PRAGMA(GCC target(features))
#define END_TARGET PRAGMA(GCC pop_options)
#endif

BEGIN_TARGET("avx2,fma")
#define WIDTH 8
#define NAME(x) x##_8
#include "_cpu_scan_kernel.h"
#undef WIDTH
#undef NAME
END_TARGET

BEGIN_TARGET("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl")
#define WIDTH 16
#define NAME(x) x##_16
#include "_cpu_scan_kernel.h"
END_TARGET
#endif

/* Floats in the widest vector that this processor computes with. */
int64_t scan_width(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    int fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return 16;
    if (fma)
        return 8;
#endif
    return 4;
}

int64_t scan_chunk(void) { return CHUNK; }

typedef struct {
    const Scan *scan;
    Kernel *kernel;
    int64_t slice, slices, tasks; /* channels of a task, tasks of a group, tasks of all groups */
    int64_t scratch_size;         /* floats for each thread */
    float *scratch;
    _Atomic int64_t *progress;
    _Atomic int64_t next_task, next_scratch;
} Job;

static void *work(void *argument) {
    Job *job = argument;
    const Scan *s = job->scan;
    int64_t width = s->channels / s->groups;
    float *scratch = job->scratch + job->scratch_size * atomic_fetch_add(&job->next_scratch, 1);
#if defined(__x86_64__)
    unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040); /* numbers below the normal ones are zero; computing with them is slow */
#endif
    for (;;) {
        int64_t i = atomic_fetch_add(&job->next_task, 1);
        if (i >= job->tasks)
            break;
        int64_t group = i / job->slices, turn = i % job->slices, first = turn * job->slice;
        int64_t end = first + job->slice < width ? first + job->slice : width;
        int64_t before = group % s->groups * width;
        Task task = {group / s->groups, group, before + first, before + end, turn, job->progress + group * job->slices};
        job->kernel(s, task, scratch);
    }
#if defined(__x86_64__)
    _mm_setcsr(mode);
#endif
    return NULL;
}

/* Run the kernel on all tasks; 0, or 1 where the memory does not suffice. */
static int run(const Scan *s, Kernel *kernel, int64_t width) {
    int64_t channels = s->channels / s->groups, groups = s->batch * s->groups, threads = s->threads;
    int64_t states = (s->states + width - 1) / width * width, slice = 32;
    while (slice > 8 && groups * ((channels + slice - 1) / slice) < 64)
        slice /= 2;
    Job job = {.scan = s, .kernel = kernel, .slice = slice, .slices = (channels + slice - 1) / slice};
    job.tasks = groups * job.slices;
    job.scratch_size = 4 * CHUNK * states + slice * (3 * states + 2 * width) + (2 * CHUNK + 1) * width + 16 * CHUNK;
    job.scratch_size = (job.scratch_size + 15) / 16 * 16;
    if (threads > job.tasks)
        threads = job.tasks;
    if (threads < 1)
        threads = 1;
    pthread_t *helpers = malloc(threads * sizeof *helpers);
    job.progress = malloc(job.tasks * sizeof *job.progress);
    void *scratch = NULL;
    int failed = posix_memalign(&scratch, 64, threads * job.scratch_size * sizeof(float)) || !helpers || !job.progress;
    if (!failed) {
        job.scratch = scratch;
        for (int64_t i = 0; i < job.tasks; i++)
            atomic_init(&job.progress[i], INT64_MAX);
        int64_t started = 0; /* a thread that does not start is no loss but of time: tasks are taken, not dealt */
        while (started < threads - 1 && !pthread_create(&helpers[started], NULL, work, &job))
            started++;
        work(&job);
        while (started)
            pthread_join(helpers[--started], NULL);
    }
    free(helpers);
    free((void *)job.progress);
    free(scratch);
    return failed;
}

#if defined(__x86_64__)
#define CHOOSE(kernel) (width == 16 ? kernel##_16 : width == 8 ? kernel##_8 : kernel##_4)
#else
#define CHOOSE(kernel) kernel##_4
#endif

int scan_forward(const Scan *s) {
    int64_t width = s->width ? s->width : scan_width();
    return run(s, CHOOSE(forward), width);
}

int scan_backward(const Scan *s) {
    int64_t width = s->width ? s->width : scan_width();
    return run(s, CHOOSE(backward), width);
}
