/* The sLSTM cell on the CPU, float32, forward and backward; nnunet_echo/ops/slstm/__init__.py has the equations.
 *
 * Plain C as _cpu_scan.c, in the same library: slstm/cpu.py fills a `Cell` and calls slstm_forward or slstm_backward.
 * A task is one head of one sequence, since heads do not mix; its tokens wait for each other. The forward keeps what
 * every token computed (`kept`). The backward gives the gradient at the preactivations alone; those at R and b are sums
 * of products of it, which PyTorch computes for all tokens at once.
 */

#include "_cpu_common.h"

#define GATES 4 /* i, f, z, o */
#define KEPT 7  /* preactivations of the gates, c, n, m */
#define STATES 4 /* y, c, n, m */

typedef struct {
    int64_t batch, length, heads, size; /* size: D, channels of a head */
    int64_t fresh;                      /* no state before the first token: m is i there */
    int64_t threads, width;             /* width: floats in a vector, 0 for the widest there is */
    Parallel *parallel;                 /* of the runtime that PyTorch uses; NULL: threads of our own */
    const float *x, *R, *b, *initial;   /* (B, S, gate, H, D), (H, gate, out, in), (gate, H, D), (state, B, H, D) */
    float *y, *last, *kept;             /* (B, H, S, D), (state, B, H, D), (B, H, S, KEPT, D in whole lines) */
    const float *grad_y, *grad_last;
    float *grad_x, *grad_initial;
} Cell;

typedef struct {
    int64_t sequence, head;
} Task;

typedef void Kernel(const Cell *, Task, float *);

/* Floats of a row of D in the work space and in `kept`: whole vectors of any width. */
INLINE int64_t line_of(const Cell *s) { return round_up(s->size, 16); }

INLINE int64_t state_at(const Cell *s, Task task, int64_t state) {
    return ((state * s->batch + task.sequence) * s->heads + task.head) * s->size;
}

INLINE int64_t gate_at(const Cell *s, Task task, int64_t token, int64_t gate) {
    return (((task.sequence * s->length + token) * GATES + gate) * s->heads + task.head) * s->size;
}

INLINE int64_t token_at(const Cell *s, Task task, int64_t token) {
    return (task.sequence * s->heads + task.head) * s->length + token;
}

/* Rows of D floats to whole lines, whose rest stays as it is, and back. */
INLINE void copy(float *to, const float *from, int64_t size) { memcpy(to, from, size * sizeof *to); }

#define WIDTH 4
#define NAME(x) x##_4
#include "_cpu_slstm_kernel.h"
#undef WIDTH
#undef NAME

#if defined(__x86_64__)
BEGIN_TARGET("avx2,fma")
#define WIDTH 8
#define NAME(x) x##_8
#include "_cpu_slstm_kernel.h"
#undef WIDTH
#undef NAME
END_TARGET

BEGIN_TARGET("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl")
#define WIDTH 16
#define NAME(x) x##_16
#include "_cpu_slstm_kernel.h"
#undef WIDTH
#undef NAME
END_TARGET
#endif

/* For cpu.py to tell a library that was compiled from other sources. */
int64_t slstm_size(void) { return sizeof(Cell); }

typedef struct {
    const Cell *cell;
    Kernel *kernel;
    int64_t tasks, scratch_size; /* floats for each thread */
    float *scratch;
    _Atomic int64_t next_task, next_scratch;
} Job;

static void work(void *argument) {
    Job *job = argument;
    const Cell *s = job->cell;
    float *scratch = job->scratch + job->scratch_size * atomic_fetch_add(&job->next_scratch, 1);
    unsigned mode = enter_fast_mode();
    for (;;) {
        int64_t i = atomic_fetch_add(&job->next_task, 1);
        if (i >= job->tasks)
            break;
        job->kernel(s, (Task){i % s->batch, i / s->batch}, scratch);
    }
    leave_fast_mode(mode);
}

/* Run the kernel on all tasks; 0, or 1 where the memory does not suffice. */
static int run(const Cell *s, Kernel *kernel) {
    Job job = {.cell = s, .kernel = kernel, .tasks = s->batch * s->heads};
    job.scratch_size = (GATES * s->size + 3 * GATES + 4 * STATES) * line_of(s);
    int64_t threads = min(s->threads < 1 ? 1 : s->threads, job.tasks);
    void *scratch = NULL;
    if (threads < 1)
        return 0;
    if (posix_memalign(&scratch, 64, threads * job.scratch_size * sizeof(float)))
        return 1;
    memset(scratch, 0, threads * job.scratch_size * sizeof(float));
    job.scratch = scratch;
    run_on_threads(work, &job, threads, s->parallel);
    free(scratch);
    return 0;
}

int slstm_forward(const Cell *s) { return run(s, CHOOSE(slstm, (s->width ? s->width : scan_width()))); }

int slstm_backward(const Cell *s) { return run(s, CHOOSE(slstm_back, (s->width ? s->width : scan_width()))); }
