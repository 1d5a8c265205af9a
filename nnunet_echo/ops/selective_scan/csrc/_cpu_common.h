/* What the operators in C share: compilers and instruction sets, work space, and threads that take tasks. */

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define TOGETHER 4 /* exponentials computed side by side */
#define LOG2E 1.44269504f

#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(I, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(I, a, b, ...) __builtin_shuffle(a, b, (I){__VA_ARGS__})
#endif

/* Between them a kernel's file is included once for each instruction set, and CHOOSE takes one of a kernel's forms. */
#if defined(__x86_64__)
#define PRAGMA(x) _Pragma(#x)
#if defined(__clang__)
#define BEGIN_TARGET(features) PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define END_TARGET PRAGMA(clang attribute pop)
#else
#define BEGIN_TARGET(features) PRAGMA(GCC push_options) PRAGMA(GCC target(features))
#define END_TARGET PRAGMA(GCC pop_options)
#endif
#define CHOOSE(kernel, width) (width == 16 ? kernel##_16 : width == 8 ? kernel##_8 : kernel##_4)
#else
#define CHOOSE(kernel, width) kernel##_4
#endif

/* Floats in the widest vector that this processor computes with. */
int64_t scan_width(void);

/* OpenMP's entry point: run `work` on `argument` in that many threads. */
typedef void Parallel(void (*work)(void *), void *argument, unsigned threads, unsigned flags);

INLINE int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int is_one(int64_t step) { return step == 1 || step == -1; }
INLINE int64_t round_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

INLINE float *take(float **scratch, int64_t count) {
    float *taken = *scratch;
    *scratch += round_up(count, 16);
    return taken;
}

/* Numbers below the normal ones are zero, since computing with them is slow; `mode` is for leave_fast_mode. */
INLINE unsigned enter_fast_mode(void) {
#if defined(__x86_64__)
    unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040);
    return mode;
#else
    return 0;
#endif
}

INLINE void leave_fast_mode(unsigned mode) {
#if defined(__x86_64__)
    _mm_setcsr(mode);
#else
    (void)mode;
#endif
}

typedef struct {
    void (*work)(void *);
    void *argument;
} Call;

static void *call_of_thread(void *call) {
    ((Call *)call)->work(((Call *)call)->argument);
    return NULL;
}

/* `work` in up to that many threads: tasks are taken, not dealt, so a thread that does not start costs only time.
 * PyTorch's own threads are best: they spin for a while after its operations, and ours would have to wait for a core. */
static void run_on_threads(void (*work)(void *), void *argument, int64_t threads, Parallel *parallel) {
    Call call = {work, argument};
    pthread_t *helpers = threads > 1 && !parallel ? malloc(threads * sizeof *helpers) : NULL;
    int64_t started = 0;
    if (threads > 1 && parallel)
        parallel(work, argument, (unsigned)threads, 0);
    else {
        while (helpers && started < threads - 1 && !pthread_create(&helpers[started], NULL, call_of_thread, &call))
            started++;
        work(argument);
        while (started)
            pthread_join(helpers[--started], NULL);
    }
    free(helpers);
}
