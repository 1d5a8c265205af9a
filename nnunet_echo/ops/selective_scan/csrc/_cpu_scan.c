/* Selective scan on the CPU, float32, forward and backward: tasks, threads, choice of the instruction set. Beside it
 * the convolution that stands in front of it.
 *
 * Plain C, no header of Python or PyTorch: cpu.py loads the library with ctypes, fills a `Scan` and calls scan_forward,
 * scan_backward, conv_forward or conv_backward without the interpreter lock. Letters and shapes as in
 * nnunet_echo/ops/selective_scan/__init__.py. The kernels are in _cpu_scan_kernel.h and _cpu_conv_kernel.h.
 *
 * A task is a few channels of one group of one sequence, walked in chunks of tokens. The forward keeps the state at the
 * start of each chunk (`starts`); the backward walks the chunks from the last to the first and recomputes the states
 * inside. B and C are shared by a group, so its tasks add to the same gradients: chunk by chunk and in the order of the
 * tasks, whichever thread runs them. That needs no buffer per thread, and the result does not depend on the threads.
 */

#include <sched.h>

#include "_cpu_common.h"

#define CHUNK 64   /* tokens; B, C, their gradients and the states of a chunk fit the first cache */
#define SLICE 16   /* most channels of a task, a line of the cache where channels are neighbours in memory */
#define FRAME 16   /* most taps of the convolution, less one */
#define PITCH (CHUNK + FRAME)

/* An array (B, G, rows, L), rows being channels or states, with its distances in floats; data is NULL where absent. */
typedef struct {
    float *data;
    int64_t batch, group, row, token;
} Array;

typedef struct {
    int64_t batch, groups, channels, states, length; /* channels of a group */
    int64_t taps;                                    /* of the convolution */
    int64_t softplus, threads, width;                /* width: floats in a vector, 0 for the widest there is */
    const char *reverse;                             /* per group: read the tokens from the last to the first */
    Parallel *parallel;                              /* of the runtime that PyTorch uses; NULL: threads of our own */
    Array u, delta, B, C, z, y, grad_y, grad_u, grad_delta, grad_B, grad_C, grad_z;
    const float *A, *D, *delta_bias;    /* contiguous, like all that follow */
    float *last, *starts;               /* (B, D, N), (B, D, chunks, N) */
    const float *grad_last;
    float *grad_A, *grad_D, *grad_delta_bias; /* one for each sequence of the batch: (B, D, N), (B, D), (B, D) */
    const float *weight, *bias;               /* of the convolution: (D, taps), (D) */
    float *grad_weight, *grad_bias;           /* one for each sequence of the batch */
} Scan;

#include "_cpu_scan_chunks.h"

typedef void Kernel(const Scan *, Task, float *);

#define WIDTH 4
#define NAME(x) x##_4
#include "_cpu_scan_kernel.h"
#include "_cpu_conv_kernel.h"
#undef WIDTH
#undef NAME

#if defined(__x86_64__)
BEGIN_TARGET("avx2,fma")
#define WIDTH 8
#define NAME(x) x##_8
#include "_cpu_scan_kernel.h"
#include "_cpu_conv_kernel.h"
#undef WIDTH
#undef NAME
END_TARGET

BEGIN_TARGET("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl")
#define WIDTH 16
#define NAME(x) x##_16
#include "_cpu_scan_kernel.h"
#include "_cpu_conv_kernel.h"
#undef WIDTH
#undef NAME
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

/* For cpu.py to tell a library that was compiled from other sources. */
int64_t scan_size(void) { return sizeof(Scan); }

typedef struct {
    const Scan *scan;
    Kernel *kernel;
    int64_t slice, slices, tasks; /* channels of a task, tasks of a group, tasks of all groups */
    int64_t scratch_size;         /* floats for each thread */
    float *scratch;
    _Atomic int64_t *progress;
    _Atomic int64_t next_task, next_scratch;
} Job;

static void work(void *argument) {
    Job *job = argument;
    const Scan *s = job->scan;
    Scan backwards = *s;
    turn_around(&backwards);
    float *scratch = job->scratch + job->scratch_size * atomic_fetch_add(&job->next_scratch, 1);
    unsigned mode = enter_fast_mode();
    for (;;) {
        int64_t i = atomic_fetch_add(&job->next_task, 1), groups = s->batch * s->groups;
        if (i >= job->tasks)
            break;
        int64_t group = i % groups; /* neighbours in time are of different groups, so that they seldom wait */
        Task task = {.batch = group / s->groups, .group = group % s->groups, .turn = i / groups};
        task.first = task.turn * job->slice;
        task.channels = min(job->slice, s->channels - task.first);
        task.channel = task.group * s->channels + task.first;
        task.row = group * s->channels + task.first;
        task.progress = job->progress + group * job->slices;
        job->kernel(s->reverse[task.group] ? &backwards : s, task, scratch);
    }
    leave_fast_mode(mode);
}

/* Run the kernel on all tasks; 0, or 1 where the memory does not suffice. */
static int run(const Scan *s, Kernel *kernel) {
    int64_t groups = s->batch * s->groups, lanes = round_up(s->states, 16);
    Job job = {.scan = s, .kernel = kernel, .slice = SLICE};
    job.slices = (s->channels + job.slice - 1) / job.slice;
    job.tasks = groups * job.slices;
    /* What `backward` takes; the others take less. */
    job.scratch_size = 4 * (CHUNK + SLICE) * lanes + (2 * CHUNK + 1 + 2 * SLICE) * 16 + (7 + 7 * SLICE) * CHUNK;
    int64_t threads = min(s->threads < 1 ? 1 : s->threads, job.tasks);
    void *scratch = NULL;
    int failed = posix_memalign(&scratch, 64, threads * job.scratch_size * sizeof(float));
    job.progress = malloc(job.tasks * sizeof *job.progress);
    failed = failed || !job.progress;
    if (!failed) {
        job.scratch = scratch;
        for (int64_t i = 0; i < job.tasks; i++)
            atomic_init(&job.progress[i], INT64_MAX);
        run_on_threads(work, &job, threads, s->parallel);
    }
    free((void *)job.progress);
    free(scratch);
    return failed;
}

int scan_forward(const Scan *s) { return run(s, CHOOSE(forward, (s->width ? s->width : scan_width()))); }

int conv_forward(const Scan *s) { return run(s, CHOOSE(convolve, (s->width ? s->width : scan_width()))); }

int conv_backward(const Scan *s) { return run(s, CHOOSE(convolve_back, (s->width ? s->width : scan_width()))); }

int scan_backward(const Scan *s) { return run(s, CHOOSE(backward, (s->width ? s->width : scan_width()))); }
