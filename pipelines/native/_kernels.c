/* The inner loops of a search: sums of postings, the best of many scores, inner products of bytes, orders.
 *
 * Each function has a twin in numpy that gives the same to the bit (pipelines/native/__init__.py names them): integers
 * are exact, and floats are added in the same order, without fused operations. The interpreter's lock is kept: with
 * 43,000 items the longest call takes .3 ms, and a search that gave the lock away could wait longer to get it back.
 */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define X86 1
#include <immintrin.h>
#endif

/* ---- arrays as arguments ------------------------------------------------------------------------------------- */

enum kind { BOOL, INT8, UINT8, INT32, INT64, FLOAT32 };

static const struct { Py_ssize_t size; const char *formats, *name; } KINDS[] = {
    [BOOL] = {1, "?", "bool"},
    [INT8] = {1, "b", "int8"},
    [UINT8] = {1, "B", "uint8"},
    [INT32] = {4, "il", "int32"},
    [INT64] = {8, "lq", "int64"},
    [FLOAT32] = {4, "f", "float32"},
};

#define MOST_ARRAYS 8

typedef struct {
    Py_buffer views[MOST_ARRAYS];
    int held;
} arrays;

static void release(arrays *all)
{
    while (all->held)
        PyBuffer_Release(&all->views[--all->held]);
}

/* The elements of a contiguous array; NULL with an exception set. `length` is told, or checked where it is not -1. */
static void *elements(arrays *all, PyObject *array, enum kind kind, int writable, Py_ssize_t *length)
{
    Py_buffer *view = &all->views[all->held];
    if (PyObject_GetBuffer(array, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0)) < 0)
        return NULL;
    all->held++;
    if (view->itemsize != KINDS[kind].size || !view->format || !view->format[0] || view->format[1] || !strchr(KINDS[kind].formats, view->format[0])) {
        PyErr_Format(PyExc_TypeError, "an array has the format %s where %s is wanted", view->format ? view->format : "?", KINDS[kind].name);
        return NULL;
    }
    Py_ssize_t n = view->len / view->itemsize;
    if (*length >= 0 && *length != n) {
        PyErr_Format(PyExc_ValueError, "an array has %zd elements where %zd are wanted", n, *length);
        return NULL;
    }
    if ((uintptr_t)view->buf % (size_t)view->itemsize) {
        PyErr_SetString(PyExc_ValueError, "an array is not aligned");
        return NULL;
    }
    *length = n;
    return view->buf ? view->buf : (void *)view; /* of an empty one nothing is read */
}

static int wants(Py_ssize_t given, Py_ssize_t wanted)
{
    if (given == wanted)
        return 1;
    PyErr_Format(PyExc_TypeError, "%zd arguments where %zd are wanted", given, wanted);
    return 0;
}

/* ---- the best of many scores --------------------------------------------------------------------------------- */

#define LANES 16
#define CHUNK 1024 /* scores that are looked through at once */

/* Ascends with the float; both zeros are one. Not for NaN. */
static inline uint32_t rank_key(float value)
{
    uint32_t bits;
    value += 0.0f; /* -0 becomes 0 */
    memcpy(&bits, &value, 4);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* The float of a key; the key below that of 0 is -0. */
static inline float of_key(uint32_t key)
{
    const uint32_t bits = key & 0x80000000u ? key & 0x7fffffffu : ~key;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* How a level of the processor looks through scores: the maxima of blocks whose items lie `blocks` apart, so that they
 * are taken along memory, NaN and what is not allowed left out; how many values are at least so high; and the places of
 * scores from..to that are, of which up to LANES more than are told are written. */
typedef struct {
    void (*maxima)(const float *scores, const uint8_t *allowed, Py_ssize_t total, Py_ssize_t blocks, float *maxima);
    Py_ssize_t (*at_least)(const float *values, Py_ssize_t m, float least);
    Py_ssize_t (*places)(const float *scores, Py_ssize_t from, Py_ssize_t to, float least, int32_t *places);
} looking;

#define ALWAYS_INLINE inline __attribute__((always_inline))

static ALWAYS_INLINE void block_maxima(const float *scores, const uint8_t *allowed, Py_ssize_t total, Py_ssize_t blocks, float *maxima)
{
    for (Py_ssize_t i = 0; i < blocks; i++)
        maxima[i] = -INFINITY;
    Py_ssize_t start = 0;
    for (; !allowed && start + 4 * blocks <= total; start += 4 * blocks) { /* four rows a turn: fewer maxima are written */
        const float *a = scores + start, *b = a + blocks, *c = b + blocks, *d = c + blocks;
        for (Py_ssize_t i = 0; i < blocks; i++) {
            float most = maxima[i];
            most = a[i] > most ? a[i] : most; /* NaN is not greater */
            most = b[i] > most ? b[i] : most;
            most = c[i] > most ? c[i] : most;
            maxima[i] = d[i] > most ? d[i] : most;
        }
    }
    for (; start + blocks <= total; start += blocks)
        for (Py_ssize_t i = 0; i < blocks; i++) {
            const float value = !allowed || allowed[start + i] ? scores[start + i] : -INFINITY;
            maxima[i] = value > maxima[i] ? value : maxima[i];
        }
}

static ALWAYS_INLINE Py_ssize_t count_at_least(const float *values, Py_ssize_t m, float least)
{
    int32_t count = 0;
    for (Py_ssize_t i = 0; i < m; i++)
        count += values[i] >= least;
    return count;
}

static void plain_maxima(const float *scores, const uint8_t *allowed, Py_ssize_t total, Py_ssize_t blocks, float *maxima)
{
    block_maxima(scores, allowed, total, blocks, maxima);
}

static Py_ssize_t plain_at_least(const float *values, Py_ssize_t m, float least)
{
    return count_at_least(values, m, least);
}

/* Which of 16 scores are at least so high, a bit each. */
static inline uint32_t high_ones(const float *scores, float least)
{
    uint32_t found = 0;
#ifdef X86
    const __m128 floor = _mm_set1_ps(least);
    for (int lane = 0; lane < LANES; lane += 4)
        found |= (uint32_t)_mm_movemask_ps(_mm_cmpge_ps(_mm_loadu_ps(scores + lane), floor)) << lane;
#else
    for (int lane = 0; lane < LANES; lane++)
        found |= (uint32_t)(scores[lane] >= least) << lane;
#endif
    return found;
}

static Py_ssize_t plain_places(const float *scores, Py_ssize_t from, Py_ssize_t to, float least, int32_t *places)
{
    Py_ssize_t kept = 0, i = from;
    for (; i + LANES <= to; i += LANES)
        for (uint32_t high = high_ones(scores + i, least); high; high &= high - 1)
            places[kept++] = (int32_t)(i + __builtin_ctz(high));
    for (; i < to; i++) {
        places[kept] = (int32_t)i;
        kept += scores[i] >= least;
    }
    return kept;
}

static const looking PLAIN_LOOK = {plain_maxima, plain_at_least, plain_places};

#ifdef X86
__attribute__((target("avx2"))) static void avx2_maxima(const float *scores, const uint8_t *allowed, Py_ssize_t total, Py_ssize_t blocks, float *maxima)
{
    block_maxima(scores, allowed, total, blocks, maxima);
}

__attribute__((target("avx2"))) static Py_ssize_t avx2_at_least(const float *values, Py_ssize_t m, float least)
{
    return count_at_least(values, m, least);
}

__attribute__((target("avx512f"))) static Py_ssize_t avx512_places(const float *scores, Py_ssize_t from, Py_ssize_t to, float least, int32_t *places)
{
    const __m512 floor = _mm512_set1_ps(least);
    const __m512i step = _mm512_set1_epi32(LANES);
    __m512i place = _mm512_add_epi32(_mm512_set1_epi32((int32_t)from), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    Py_ssize_t kept = 0;
    for (Py_ssize_t i = from; i < to; i += LANES, place = _mm512_add_epi32(place, step)) {
        const __mmask16 there = to - i < LANES ? (__mmask16)((1u << (to - i)) - 1) : (__mmask16)0xffff;
        const __mmask16 high = _mm512_mask_cmp_ps_mask(there, _mm512_maskz_loadu_ps(there, scores + i), floor, _CMP_GE_OQ);
        _mm512_storeu_si512(places + kept, _mm512_maskz_compress_epi32(high, place));
        kept += __builtin_popcount(high);
    }
    return kept;
}

static const looking AVX2_LOOK = {avx2_maxima, avx2_at_least, plain_places}, AVX512_LOOK = {avx2_maxima, avx2_at_least, avx512_places};
#endif

static const looking *look = &PLAIN_LOOK;

static float highest(const float *values, Py_ssize_t m)
{
    float best[LANES], found = -INFINITY;
    Py_ssize_t i = 0;
    for (int lane = 0; lane < LANES; lane++)
        best[lane] = -INFINITY;
    for (; i + LANES <= m; i += LANES)
        for (int lane = 0; lane < LANES; lane++)
            best[lane] = values[i + lane] > best[lane] ? values[i + lane] : best[lane];
    for (; i < m; i++)
        found = values[i] > found ? values[i] : found;
    for (int lane = 0; lane < LANES; lane++)
        found = best[lane] > found ? best[lane] : found;
    return found;
}

/* The key of a score that at least n of m values reach, and at most `enough` of them: by halving between `low`, which n
 * reach, and the highest. Where no such is, since more are equal, it is that of the n-th largest. No value is NaN. */
static uint32_t threshold(const float *values, Py_ssize_t m, Py_ssize_t n, Py_ssize_t enough, uint32_t low, Py_ssize_t *reach)
{
    uint32_t high = rank_key(highest(values, m)) + 1; /* which none reaches */
    *reach = m;
    while (high - low > 1 && *reach > enough) {
        const float between = 0.5f * of_key(low) + 0.5f * of_key(high); /* nearer to the end than the middle of the keys */
        uint32_t middle = between == between ? rank_key(between) : low;
        if (middle <= low || middle >= high)
            middle = low + (high - low) / 2;
        const Py_ssize_t count = look->at_least(values, m, of_key(middle));
        if (count >= n)
            low = middle, *reach = count;
        else
            high = middle;
    }
    return low;
}

/* A score that at least n of the allowed ones reach and few more: of the maxima of 4 n blocks as many do; or `least`,
 * where fewer maxima are so high. */
static float reached(const float *scores, const uint8_t *allowed, Py_ssize_t total, Py_ssize_t n, float least, float *maxima)
{
    const Py_ssize_t blocks = 4 * n;
    Py_ssize_t reach;
    if (total < 4 * blocks)
        return least;
    look->maxima(scores, allowed, total, blocks, maxima);
    if (look->at_least(maxima, blocks, least) < n)
        return least;
    return of_key(threshold(maxima, blocks, n, n + n / 16, rank_key(least), &reach));
}

/* The places of all allowed scores that are at least so high, ascending, for the caller to free; NULL
 * where there is no memory. */
static int32_t *reaching(const float *scores, const uint8_t *allowed, Py_ssize_t total, float least, Py_ssize_t *kept)
{
    Py_ssize_t room = 0;
    int32_t *places = NULL;
    *kept = 0;
    for (Py_ssize_t from = 0; from < total || !places; from += CHUNK) {
        if (*kept + CHUNK + LANES > room) {
            int32_t *more = realloc(places, (room = 2 * room + CHUNK + LANES) * sizeof *places);
            if (!more) {
                free(places);
                return NULL;
            }
            places = more;
        }
        *kept += look->places(scores, from, from + CHUNK < total ? from + CHUNK : total, least, places + *kept);
    }
    if (allowed) {
        const Py_ssize_t of_all = *kept;
        *kept = 0;
        for (Py_ssize_t i = 0; i < of_all; i++) {
            places[*kept] = places[i];
            *kept += allowed[places[i]];
        }
    }
    return places;
}

/* The best n of m places into out, m > n, in their order, ties by the first; scratch holds m floats. */
static void best_of(const float *scores, const int32_t *places, Py_ssize_t m, Py_ssize_t n, float least, float *values, int64_t *out)
{
    Py_ssize_t reach, at = 0;
    for (Py_ssize_t i = 0; i < m; i++)
        values[i] = scores[places[i]];
    const uint32_t key = threshold(values, m, n, n, rank_key(least), &reach);
    const float last = of_key(key);
    Py_ssize_t ties = reach == n ? n : n - look->at_least(values, m, of_key(key + 1));
    for (Py_ssize_t i = 0; at < n; i++) {
        const int tied = values[i] == last;
        out[at] = places[i];
        at += values[i] > last || (tied && ties > 0);
        ties -= tied;
    }
}

/* leading(scores, allowed | None, above | None, out) -> count
 *
 * Codes of the best len(out) scores, ascending, ties by the lower code; NaN is no score, nor is what is not above
 * `above` or not allowed. */
static PyObject *leading(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    arrays all = {.held = 0};
    PyObject *result = NULL;
    float *values = NULL;
    int32_t *places = NULL;
    Py_ssize_t total = -1, n = -1, kept = 0;
    (void)self;
    if (!wants(nargs, 4))
        return NULL;
    const float *scores = elements(&all, args[0], FLOAT32, 0, &total);
    const uint8_t *allowed = NULL;
    if (!scores || (args[1] != Py_None && !(allowed = elements(&all, args[1], BOOL, 0, &total))))
        goto end;
    float least = args[2] == Py_None ? -INFINITY : (float)PyFloat_AsDouble(args[2]);
    if (PyErr_Occurred())
        goto end;
    if (args[2] != Py_None)
        least = of_key(rank_key(least) + 1); /* the next higher float */
    int64_t *out = elements(&all, args[3], INT64, 1, &n);
    if (!out)
        goto end;
    if (total > INT32_MAX) {
        PyErr_Format(PyExc_ValueError, "%zd scores are too many", total);
        goto end;
    }
    if (n) {
        if (!(values = malloc(4 * n * sizeof *values)))
            goto no_memory;
        least = reached(scores, allowed, total, n, least, values);
        if (!(places = reaching(scores, allowed, total, least, &kept)))
            goto no_memory;
        if (kept > n) {
            float *of_kept = realloc(values, kept * sizeof *values);
            if (!of_kept)
                goto no_memory;
            values = of_kept;
            best_of(scores, places, kept, n, least, values, out);
            kept = n;
        } else
            for (Py_ssize_t i = 0; i < kept; i++)
                out[i] = places[i];
    }
    result = PyLong_FromSsize_t(kept);
    goto end;
no_memory:
    PyErr_NoMemory();
end:
    free(values), free(places);
    release(&all);
    return result;
}

/* ---- inner products of bytes --------------------------------------------------------------------------------- */

#define LONGEST (1 << 16) /* numbers of a row, whose sums int32 holds */
#define PADDED(d) (((d) + 63) / 64 * 64)

typedef struct {
    const int8_t *bytes;    /* [padded], zeros behind d */
    const int16_t *shorts;  /* likewise */
    int32_t sum;            /* of the bytes */
    Py_ssize_t d;
} question;

typedef void four_dots(const int8_t *const rows[4], const question *asked, int32_t sums[4]);

static int32_t plain_dot(const int8_t *row, const int8_t *asked, Py_ssize_t from, Py_ssize_t to)
{
    int32_t sum = 0;
    for (Py_ssize_t i = from; i < to; i++)
        sum += (int32_t)row[i] * asked[i];
    return sum;
}

static void plain_dots(const int8_t *const rows[4], const question *asked, int32_t sums[4])
{
    for (int row = 0; row < 4; row++)
        sums[row] = plain_dot(rows[row], asked->bytes, 0, asked->d);
}

#ifdef X86
__attribute__((target("avx2"))) static void avx2_dots(const int8_t *const rows[4], const question *asked, int32_t sums[4])
{
    __m256i total[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
    Py_ssize_t i = 0;
    for (; i + 16 <= asked->d; i += 16) {
        __m256i shorts = _mm256_loadu_si256((const __m256i *)(asked->shorts + i));
        for (int row = 0; row < 4; row++) {
            __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(rows[row] + i)));
            total[row] = _mm256_add_epi32(total[row], _mm256_madd_epi16(wide, shorts));
        }
    }
    __m256i pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(total[0], total[1]), _mm256_hadd_epi32(total[2], total[3]));
    _mm_storeu_si128((__m128i *)sums, _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1)));
    if (i < asked->d)
        for (int row = 0; row < 4; row++)
            sums[row] += plain_dot(rows[row], asked->bytes, i, asked->d);
}

/* The instruction multiplies bytes without a sign by bytes with one, so rows are moved up by 128. */
__attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni"))) static void vnni_dots(const int8_t *const rows[4], const question *asked, int32_t sums[4])
{
    const __m256i up = _mm256_set1_epi8((char)0x80);
    __m256i total[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
    Py_ssize_t i = 0;
    for (; i + 32 <= asked->d; i += 32) {
        __m256i bytes = _mm256_loadu_si256((const __m256i *)(asked->bytes + i));
        for (int row = 0; row < 4; row++)
            total[row] = _mm256_dpbusd_epi32(total[row], _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(rows[row] + i)), up), bytes);
    }
    if (i < asked->d) {
        const __mmask32 rest = (__mmask32)((1ull << (asked->d - i)) - 1);
        __m256i bytes = _mm256_loadu_si256((const __m256i *)(asked->bytes + i));
        for (int row = 0; row < 4; row++)
            total[row] = _mm256_dpbusd_epi32(total[row], _mm256_xor_si256(_mm256_maskz_loadu_epi8(rest, rows[row] + i), up), bytes);
    }
    __m256i pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(total[0], total[1]), _mm256_hadd_epi32(total[2], total[3]));
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    _mm_storeu_si128((__m128i *)sums, _mm_sub_epi32(four, _mm_set1_epi32(128 * asked->sum)));
}
#endif

static four_dots *dots = plain_dots;

/* Memory is asked for before it is needed: so many rows ahead where they lie apart, and so many bytes where one follows
 * the other, as a processor by itself stops at the end of every page. */
#define ROWS_AHEAD 8
#define BYTES_AHEAD 4096

/* The vector in bytes, the sum of which is added to `sum`, and their scale: the largest is 127 of it. */
static float rounded(const float *vector, Py_ssize_t d, int8_t *bytes, int32_t *sum)
{
    float largest = 0;
    for (Py_ssize_t i = 0; i < d; i++)
        largest = fabsf(vector[i]) > largest || isnan(vector[i]) ? fabsf(vector[i]) : largest; /* NaN stays */
    const float scale = largest / 127.0f;
    for (Py_ssize_t i = 0; i < d; i++) {
        bytes[i] = scale > 0 && isfinite(scale) ? (int8_t)(int32_t)rintf(vector[i] / scale) : 0;
        *sum += bytes[i];
    }
    return scale;
}

/* products(codes, scales, vector, rows | None, out)
 *
 * The vector is rounded to `asked` with a `scale`, the largest of its numbers being 127 of it; then, of rows[i] or of
 * all, out[i] = (sum of codes[row] * asked) * (scales[row] * scale). */
static PyObject *products(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    arrays all = {.held = 0};
    PyObject *result = NULL;
    void *copies = NULL;
    Py_ssize_t size = -1, n = -1, d = -1, m = -1;
    (void)self;
    if (!wants(nargs, 5))
        return NULL;
    const int8_t *codes = elements(&all, args[0], INT8, 0, &size);
    const float *scales = codes ? elements(&all, args[1], FLOAT32, 0, &n) : NULL;
    const float *vector = scales ? elements(&all, args[2], FLOAT32, 0, &d) : NULL;
    const int64_t *rows = NULL;
    if (!vector || (args[3] != Py_None && !(rows = elements(&all, args[3], INT64, 0, &m))))
        goto end;
    if (!rows)
        m = n;
    float *out = elements(&all, args[4], FLOAT32, 1, &m);
    if (!out)
        goto end;
    if (d > LONGEST || size != n * d) {
        PyErr_Format(PyExc_ValueError, "%zd codes are not %zd rows of %zd", size, n, d);
        goto end;
    }
    for (Py_ssize_t i = 0; rows && i < m; i++)
        if (rows[i] < 0 || rows[i] >= n) {
            PyErr_Format(PyExc_IndexError, "row %lld of %zd", (long long)rows[i], n);
            goto end;
        }
    if (!(copies = calloc(PADDED(d) + 1, 3))) {
        PyErr_NoMemory();
        goto end;
    }
    int16_t *shorts = copies;
    int8_t *bytes = (int8_t *)(shorts + PADDED(d));
    question one = {bytes, shorts, 0, d};
    const float scale = rounded(vector, d, bytes, &one.sum);
    for (Py_ssize_t i = 0; i < d; i++)
        shorts[i] = bytes[i];
    for (Py_ssize_t i = 0; i < m; i += 4) {
        const int8_t *four[4];
        int32_t sums[4];
        for (int lane = 0; lane < 4; lane++) {
            Py_ssize_t place = i + lane < m ? i + lane : m - 1;
            four[lane] = codes + (rows ? rows[place] : place) * d;
            uintptr_t next = (uintptr_t)four[lane] + BYTES_AHEAD;
            if (rows)
                next = (uintptr_t)(place + ROWS_AHEAD < m ? codes + rows[place + ROWS_AHEAD] * d : four[lane]);
            for (Py_ssize_t line = 0; line < d; line += 64)
                __builtin_prefetch((const void *)(next + line));
        }
        dots(four, &one, sums);
        for (int lane = 0; lane < 4 && i + lane < m; lane++)
            out[i + lane] = (float)sums[lane] * (scales[rows ? rows[i + lane] : i + lane] * scale);
    }
    result = Py_NewRef(Py_None);
end:
    free(copies);
    release(&all);
    return result;
}

/* direction(codes, scales, rows, out) -> bool
 *
 * Unit vector of the sum of codes[row] * scales[row] over the rows, added in their order, a NaN scale adding nothing;
 * False, and zeros, where the sum is 0. */
static PyObject *direction(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    arrays all = {.held = 0};
    PyObject *result = NULL;
    Py_ssize_t size = -1, n = -1, m = -1, d = -1;
    (void)self;
    if (!wants(nargs, 4))
        return NULL;
    const int8_t *codes = elements(&all, args[0], INT8, 0, &size);
    const float *scales = codes ? elements(&all, args[1], FLOAT32, 0, &n) : NULL;
    const int64_t *rows = scales ? elements(&all, args[2], INT64, 0, &m) : NULL;
    float *out = rows ? elements(&all, args[3], FLOAT32, 1, &d) : NULL;
    if (!out)
        goto end;
    if (size != n * d) {
        PyErr_Format(PyExc_ValueError, "%zd codes are not %zd rows of %zd", size, n, d);
        goto end;
    }
    memset(out, 0, d * sizeof *out);
    for (Py_ssize_t i = 0; i < m; i++) {
        if (rows[i] < 0 || rows[i] >= n) {
            PyErr_Format(PyExc_IndexError, "row %lld of %zd", (long long)rows[i], n);
            goto end;
        }
        const int8_t *row = codes + rows[i] * d;
        const float scale = scales[rows[i]];
        for (Py_ssize_t j = 0; j < d && !isnan(scale); j++)
            out[j] += (float)row[j] * scale;
    }
    double squares = 0;
    for (Py_ssize_t j = 0; j < d; j++)
        squares += (double)out[j] * out[j];
    const double length = sqrt(squares);
    for (Py_ssize_t j = 0; j < d && length > 0; j++)
        out[j] = (float)(out[j] / length);
    result = PyBool_FromLong(length > 0);
end:
    release(&all);
    return result;
}

/* ---- inner products of half bytes ---------------------------------------------------------------------------- */

/* Byte j of a row of h bytes holds two numbers from -7 to 7, each with 8 added: number j in its lower half and number
 * h + j in its upper one. `asked` has the 2 h numbers of the question; what is told is 8 times their
 * sum too high. */
typedef void half_dots_of_all(const uint8_t *rows, Py_ssize_t n, const int8_t *asked, Py_ssize_t h, int32_t *sums);

static int32_t plain_half_dot(const uint8_t *row, const int8_t *asked, Py_ssize_t from, Py_ssize_t h)
{
    int32_t sum = 0;
    for (Py_ssize_t j = from; j < h; j++)
        sum += (row[j] & 15) * asked[j] + (row[j] >> 4) * asked[h + j];
    return sum;
}

static void plain_half_dots(const uint8_t *rows, Py_ssize_t n, const int8_t *asked, Py_ssize_t h, int32_t *sums)
{
    for (Py_ssize_t i = 0; i < n; i++)
        sums[i] = plain_half_dot(rows + i * h, asked, 0, h);
}

#ifdef X86
/* 15 * 127 * 4 fits into 16 bits, so both halves of a byte, two by two, are added before they are widened. */
__attribute__((target("avx2"))) static void avx2_half_dots(const uint8_t *rows, Py_ssize_t n, const int8_t *asked, Py_ssize_t h, int32_t *sums)
{
    const __m128i low = _mm_set1_epi8(15), ones = _mm_set1_epi16(1);
    const __m256i wide_low = _mm256_set1_epi8(15), wide_ones = _mm256_set1_epi16(1);
    Py_ssize_t i = 0;
    for (; i + 4 <= n; i += 4, rows += 4 * h) {
        __m256i total[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
        __m128i rest[4] = {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128()};
        for (Py_ssize_t line = 0; line < 4 * h; line += 64)
            __builtin_prefetch((const void *)((uintptr_t)rows + BYTES_AHEAD + line));
        Py_ssize_t j = 0;
        for (; j + 32 <= h; j += 32) {
            const __m256i lower = _mm256_loadu_si256((const __m256i *)(asked + j)), upper = _mm256_loadu_si256((const __m256i *)(asked + h + j));
            for (int row = 0; row < 4; row++) {
                __m256i two = _mm256_loadu_si256((const __m256i *)(rows + row * h + j));
                __m256i first = _mm256_maddubs_epi16(_mm256_and_si256(two, wide_low), lower);
                __m256i second = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(two, 4), wide_low), upper);
                total[row] = _mm256_add_epi32(total[row], _mm256_madd_epi16(_mm256_add_epi16(first, second), wide_ones));
            }
        }
        for (; j + 16 <= h; j += 16) {
            const __m128i lower = _mm_loadu_si128((const __m128i *)(asked + j)), upper = _mm_loadu_si128((const __m128i *)(asked + h + j));
            for (int row = 0; row < 4; row++) {
                __m128i two = _mm_loadu_si128((const __m128i *)(rows + row * h + j));
                __m128i first = _mm_maddubs_epi16(_mm_and_si128(two, low), lower);
                __m128i second = _mm_maddubs_epi16(_mm_and_si128(_mm_srli_epi16(two, 4), low), upper);
                rest[row] = _mm_add_epi32(rest[row], _mm_madd_epi16(_mm_add_epi16(first, second), ones));
            }
        }
        __m256i pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(total[0], total[1]), _mm256_hadd_epi32(total[2], total[3]));
        __m128i four = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
        four = _mm_add_epi32(four, _mm_hadd_epi32(_mm_hadd_epi32(rest[0], rest[1]), _mm_hadd_epi32(rest[2], rest[3])));
        _mm_storeu_si128((__m128i *)(sums + i), four);
        for (int row = 0; j < h && row < 4; row++)
            sums[i + row] += plain_half_dot(rows + row * h, asked, j, h);
    }
    plain_half_dots(rows, n - i, asked, h, sums + i);
}

__attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni"))) static void vnni_half_dots(const uint8_t *rows, Py_ssize_t n, const int8_t *asked, Py_ssize_t h, int32_t *sums)
{
    const __m256i low = _mm256_set1_epi8(15);
    Py_ssize_t i = 0;
    for (; i + 4 <= n; i += 4, rows += 4 * h) {
        __m256i total[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
        for (Py_ssize_t line = 0; line < 4 * h; line += 64)
            __builtin_prefetch((const void *)((uintptr_t)rows + BYTES_AHEAD + line));
        for (Py_ssize_t j = 0; j < h; j += 32) {
            const __mmask32 there = h - j < 32 ? (__mmask32)((1ull << (h - j)) - 1) : (__mmask32)0xffffffff;
            const __m256i lower = _mm256_maskz_loadu_epi8(there, asked + j), upper = _mm256_maskz_loadu_epi8(there, asked + h + j);
            for (int row = 0; row < 4; row++) {
                const __m256i two = _mm256_maskz_loadu_epi8(there, rows + row * h + j);
                total[row] = _mm256_dpbusd_epi32(total[row], _mm256_and_si256(two, low), lower);
                total[row] = _mm256_dpbusd_epi32(total[row], _mm256_and_si256(_mm256_srli_epi16(two, 4), low), upper);
            }
        }
        __m256i pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(total[0], total[1]), _mm256_hadd_epi32(total[2], total[3]));
        _mm_storeu_si128((__m128i *)(sums + i), _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1)));
    }
    plain_half_dots(rows, n - i, asked, h, sums + i);
}
#endif

static half_dots_of_all *half_dots = plain_half_dots;

/* Multiply by a level of the processor from now on; 0 where it has not that level. */
static int multiply_by(const char *level)
{
#ifdef X86
    __builtin_cpu_init();
    const int avx2 = __builtin_cpu_supports("avx2");
    if (!strcmp(level, "avx512vnni")) {
        if (!avx2 || !__builtin_cpu_supports("avx512vnni") || !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl"))
            return 0;
        dots = vnni_dots, half_dots = vnni_half_dots, look = &AVX512_LOOK;
        return 1;
    }
    if (!strcmp(level, "avx2")) {
        if (!avx2)
            return 0;
        dots = avx2_dots, half_dots = avx2_half_dots, look = &AVX2_LOOK;
        return 1;
    }
#endif
    if (strcmp(level, "plain"))
        return 0;
    dots = plain_dots, half_dots = plain_half_dots, look = &PLAIN_LOOK;
    return 1;
}

/* use(level) -> bool: of "avx512vnni", "avx2" and "plain"; False, and nothing changes, where there is no such. */
static PyObject *use(PyObject *self, PyObject *level)
{
    (void)self;
    PyObject *name = PyUnicode_AsASCIIString(level);
    if (!name)
        return NULL;
    const int found = multiply_by(PyBytes_AsString(name));
    Py_DECREF(name);
    return PyBool_FromLong(found);
}

/* half_byte_products(bytes, scales, vector, out): as products, of all rows, whose numbers are half bytes. */
static PyObject *half_byte_products(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    arrays all = {.held = 0};
    PyObject *result = NULL;
    int8_t *asked = NULL;
    int32_t sums[CHUNK];
    Py_ssize_t size = -1, n = -1, d = -1;
    (void)self;
    if (!wants(nargs, 4))
        return NULL;
    const uint8_t *bytes = elements(&all, args[0], UINT8, 0, &size);
    const float *scales = bytes ? elements(&all, args[1], FLOAT32, 0, &n) : NULL;
    const float *vector = scales ? elements(&all, args[2], FLOAT32, 0, &d) : NULL;
    float *out = vector ? elements(&all, args[3], FLOAT32, 1, &n) : NULL;
    if (!out)
        goto end;
    if (d > LONGEST || d % 2 || 2 * size != n * d) {
        PyErr_Format(PyExc_ValueError, "%zd bytes are not %zd rows of %zd numbers", size, n, d);
        goto end;
    }
    if (!(asked = malloc(d + 1))) {
        PyErr_NoMemory();
        goto end;
    }
    int32_t sum_of_asked = 0;
    const float scale = rounded(vector, d, asked, &sum_of_asked);
    for (Py_ssize_t from = 0; from < n; from += CHUNK) { /* so that the sums stay in the nearest cache */
        const Py_ssize_t rows = n - from < CHUNK ? n - from : CHUNK;
        half_dots(bytes + from * (d / 2), rows, asked, d / 2, sums);
        for (Py_ssize_t i = 0; i < rows; i++)
            out[from + i] = (float)(sums[i] - 8 * sum_of_asked) * (scales[from + i] * scale);
    }
    result = Py_NewRef(Py_None);
end:
    free(asked);
    release(&all);
    return result;
}

/* ---- postings ------------------------------------------------------------------------------------------------ */

/* posting_sums(pointer, items, values, terms, out)
 *
 * out[item] = sum of values[p] over the postings p of the terms, items[p] = item, added in the order of the terms. */
static PyObject *posting_sums(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    arrays all = {.held = 0};
    PyObject *result = NULL;
    Py_ssize_t ends = -1, postings = -1, k = -1, n = -1;
    (void)self;
    if (!wants(nargs, 5))
        return NULL;
    const int64_t *pointer = elements(&all, args[0], INT64, 0, &ends);
    const int32_t *items = pointer ? elements(&all, args[1], INT32, 0, &postings) : NULL;
    const float *values = items ? elements(&all, args[2], FLOAT32, 0, &postings) : NULL;
    const int64_t *terms = values ? elements(&all, args[3], INT64, 0, &k) : NULL;
    float *out = terms ? elements(&all, args[4], FLOAT32, 1, &n) : NULL;
    if (!out)
        goto end;
    memset(out, 0, n * sizeof *out);
    for (Py_ssize_t i = 0; i < k; i++) {
        int64_t term = terms[i];
        if (term < 0 || term >= ends - 1 || pointer[term] < 0 || pointer[term + 1] < pointer[term] || pointer[term + 1] > postings) {
            PyErr_Format(PyExc_IndexError, "term %lld of %zd", (long long)term, ends - 1);
            goto end;
        }
        for (int64_t p = pointer[term]; p < pointer[term + 1]; p++) {
            if (items[p] < 0 || items[p] >= n) {
                PyErr_Format(PyExc_IndexError, "item %d of %zd", items[p], n);
                goto end;
            }
            out[items[p]] += values[p];
        }
    }
    result = Py_NewRef(Py_None);
end:
    release(&all);
    return result;
}

/* opinions(sums, codes, out): out[i] = sums[codes[i]], NaN where that is 0. */
static PyObject *opinions(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    arrays all = {.held = 0};
    PyObject *result = NULL;
    Py_ssize_t n = -1, m = -1;
    (void)self;
    if (!wants(nargs, 3))
        return NULL;
    const float *sums = elements(&all, args[0], FLOAT32, 0, &n);
    const int64_t *codes = sums ? elements(&all, args[1], INT64, 0, &m) : NULL;
    float *out = codes ? elements(&all, args[2], FLOAT32, 1, &m) : NULL;
    if (!out)
        goto end;
    for (Py_ssize_t i = 0; i < m; i++) {
        if (codes[i] < 0 || codes[i] >= n) {
            PyErr_Format(PyExc_IndexError, "code %lld of %zd", (long long)codes[i], n);
            goto end;
        }
        const float sum = sums[codes[i]];
        out[i] = sum == 0 ? NAN : sum;
    }
    result = Py_NewRef(Py_None);
end:
    release(&all);
    return result;
}

/* ---- lists of candidates ------------------------------------------------------------------------------------- */

/* distinct(codes, n_items, out) -> count: the different codes, ascending; out is as long as codes. */
static PyObject *distinct(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    arrays all = {.held = 0};
    PyObject *result = NULL;
    uint64_t *bits = NULL;
    Py_ssize_t m = -1;
    (void)self;
    if (!wants(nargs, 3))
        return NULL;
    const int64_t *codes = elements(&all, args[0], INT64, 0, &m);
    const Py_ssize_t n = codes ? PyLong_AsSsize_t(args[1]) : -1;
    if (PyErr_Occurred())
        goto end;
    int64_t *out = elements(&all, args[2], INT64, 1, &m);
    if (!out)
        goto end;
    if (n < 0) {
        PyErr_Format(PyExc_ValueError, "%zd items", n);
        goto end;
    }
    const Py_ssize_t words = n / 64 + 1;
    if (!(bits = calloc(words, sizeof *bits))) {
        PyErr_NoMemory();
        goto end;
    }
    for (Py_ssize_t i = 0; i < m; i++) {
        if (codes[i] < 0 || codes[i] >= n) {
            PyErr_Format(PyExc_IndexError, "code %lld of %zd", (long long)codes[i], n);
            goto end;
        }
        bits[codes[i] >> 6] |= 1ull << (codes[i] & 63);
    }
    Py_ssize_t at = 0;
    for (Py_ssize_t word = 0; word < words; word++)
        for (uint64_t left = bits[word]; left; left &= left - 1)
            out[at++] = word * 64 + __builtin_ctzll(left);
    result = PyLong_FromSsize_t(at);
end:
    free(bits);
    release(&all);
    return result;
}

/* scaled(columns, k, out): each of k columns of [k, m] from 0, its least and NaN, to 1, its greatest; all 1 where they
 * are one; out is [m, k]. */
static PyObject *scaled(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    arrays all = {.held = 0};
    PyObject *result = NULL;
    Py_ssize_t size = -1;
    (void)self;
    if (!wants(nargs, 3))
        return NULL;
    const float *column = elements(&all, args[0], FLOAT32, 0, &size);
    const Py_ssize_t k = column ? PyLong_AsSsize_t(args[1]) : -1;
    if (PyErr_Occurred())
        goto end;
    float *out = elements(&all, args[2], FLOAT32, 1, &size);
    if (!out)
        goto end;
    if (k < 0 || (k ? size % k : size)) {
        PyErr_Format(PyExc_ValueError, "%zd numbers are not %zd columns", size, k);
        goto end;
    }
    const Py_ssize_t m = k ? size / k : 0;
    for (Py_ssize_t place = 0; place < k; place++, column += m) {
        float low = INFINITY, high = -INFINITY;
        for (Py_ssize_t i = 0; i < m; i++) {
            low = column[i] < low ? column[i] : low;
            high = column[i] > high ? column[i] : high;
        }
        const float span = high - low;
        for (Py_ssize_t i = 0; i < m; i++) {
            float moved = (column[i] - low) / span + 0.0f; /* -0 becomes 0 */
            out[i * k + place] = isnan(column[i]) ? 0.0f : high == low ? 1.0f : moved;
        }
    }
    result = Py_NewRef(Py_None);
end:
    release(&all);
    return result;
}

/* descending(scores, codes, out) -> bool: rows by falling score, ties by the code, NaN last; False, and nothing is
 * written, where the codes do not ascend. */
static PyObject *descending(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    arrays all = {.held = 0};
    PyObject *result = NULL;
    uint64_t *from = NULL;
    Py_ssize_t m = -1;
    (void)self;
    if (!wants(nargs, 3))
        return NULL;
    const float *scores = elements(&all, args[0], FLOAT32, 0, &m);
    const int64_t *codes = scores ? elements(&all, args[1], INT64, 0, &m) : NULL;
    int64_t *out = codes ? elements(&all, args[2], INT64, 1, &m) : NULL;
    if (!out)
        goto end;
    int ascending = m < UINT32_MAX;
    for (Py_ssize_t i = 1; i < m; i++)
        ascending &= codes[i - 1] <= codes[i];
    if (!ascending) {
        result = Py_NewRef(Py_False);
        goto end;
    }
    if (!(from = malloc((2 * m + 1) * sizeof *from))) {
        PyErr_NoMemory();
        goto end;
    }
    uint64_t *to = from + m;
    for (Py_ssize_t i = 0; i < m; i++) /* the key falls with the score */
        from[i] = (uint64_t)(isnan(scores[i]) ? 0xffffffffu : ~rank_key(scores[i])) << 32 | (uint32_t)i;
    uint64_t *all_keys = from;
    for (int shift = 32; shift < 64; shift += 11) { /* least digit first, each pass keeps the order of equal ones */
        uint32_t places[2048] = {0}, place = 0;
        for (Py_ssize_t i = 0; i < m; i++)
            places[from[i] >> shift & 2047]++;
        for (int digit = 0; digit < 2048; digit++) {
            uint32_t count = places[digit];
            places[digit] = place, place += count;
        }
        for (Py_ssize_t i = 0; i < m; i++)
            to[places[from[i] >> shift & 2047]++] = from[i];
        uint64_t *swap = from;
        from = to, to = swap;
    }
    for (Py_ssize_t i = 0; i < m; i++)
        out[i] = (uint32_t)from[i];
    from = all_keys;
    result = Py_NewRef(Py_True);
end:
    free(from);
    release(&all);
    return result;
}

/* ---- the module ---------------------------------------------------------------------------------------------- */

static PyMethodDef METHODS[] = {
    {"leading", (PyCFunction)(void (*)(void))leading, METH_FASTCALL, "leading(scores, allowed, above, out) -> count"},
    {"products", (PyCFunction)(void (*)(void))products, METH_FASTCALL, "products(codes, scales, vector, rows, out)"},
    {"direction", (PyCFunction)(void (*)(void))direction, METH_FASTCALL, "direction(codes, scales, rows, out) -> bool"},
    {"half_byte_products", (PyCFunction)(void (*)(void))half_byte_products, METH_FASTCALL, "half_byte_products(bytes, scales, vector, out)"},
    {"posting_sums", (PyCFunction)(void (*)(void))posting_sums, METH_FASTCALL, "posting_sums(pointer, items, values, terms, out)"},
    {"opinions", (PyCFunction)(void (*)(void))opinions, METH_FASTCALL, "opinions(sums, codes, out)"},
    {"distinct", (PyCFunction)(void (*)(void))distinct, METH_FASTCALL, "distinct(codes, n_items, out) -> count"},
    {"scaled", (PyCFunction)(void (*)(void))scaled, METH_FASTCALL, "scaled(columns, k, out)"},
    {"descending", (PyCFunction)(void (*)(void))descending, METH_FASTCALL, "descending(scores, codes, out) -> bool"},
    {"use", use, METH_O, "use(level) -> bool"},
    {NULL, NULL, 0, NULL},
};

static int started(PyObject *module)
{
    if (!multiply_by("avx512vnni") && !multiply_by("avx2"))
        multiply_by("plain");
    return PyModule_AddIntConstant(module, "VERSION", 3);
}

static PyModuleDef_Slot SLOTS[] = {{Py_mod_exec, started}, {0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, .m_name = "_kernels", .m_doc = "Inner loops of a search.", .m_methods = METHODS, .m_slots = SLOTS,
};

PyMODINIT_FUNC PyInit__kernels(void)
{
    return PyModuleDef_Init(&MODULE);
}
