/* Reads the profile, again whenever the file changes. A key that comes twice has its last value. */
#include "profile.h"

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "errors.h"

#define DEFAULT_PATH "/etc/gpuprov-lab/gpus"
#define PATH_VARIABLE "GPUPROV_SIMULATED_GPUS"

struct line { char *key, *value; size_t order; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    int readable;
    struct stat seen;
    char *text;
    struct line *lines;
    size_t count;
    char present[MOST_GPUS];
} profile;

static int by_key(const void *a, const void *b)
{
    const struct line *one = a, *other = b;
    int order = strcmp(one->key, other->key);
    return order ? order : (one->order > other->order) - (one->order < other->order);
}

/* Cut the text into lines, keys and values, in place. */
static void split(void)
{
    size_t room = 1;
    for (const char *c = profile.text; *c; c++)
        room += *c == '\n';
    profile.lines = calloc(room, sizeof *profile.lines);
    if (!profile.lines)
        return;
    char *rest = NULL;
    for (char *row = strtok_r(profile.text, "\n", &rest); row; row = strtok_r(NULL, "\n", &rest)) {
        while (isspace((unsigned char)*row))
            row++;
        if (!*row || *row == '#')
            continue;
        char *value = row + strcspn(row, " \t");
        if (*value)
            *value++ = '\0';
        value += strspn(value, " \t");
        for (char *end = value + strlen(value); end > value && isspace((unsigned char)end[-1]);)
            *--end = '\0';
        profile.lines[profile.count] = (struct line){row, value, profile.count};
        profile.count++;
    }
    qsort(profile.lines, profile.count, sizeof *profile.lines, by_key);
}

/* Return the last value of *key*, NULL when it has none. */
static const char *find(const char *key)
{
    size_t low = 0, high = profile.count;
    while (low < high) { /* the first line whose key is greater */
        size_t middle = low + (high - low) / 2;
        if (strcmp(profile.lines[middle].key, key) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low && strcmp(profile.lines[low - 1].key, key) == 0 ? profile.lines[low - 1].value : NULL;
}

static void find_gpus(void)
{
    memset(profile.present, 0, sizeof profile.present);
    for (size_t i = 0; i < profile.count; i++) {
        int number, end = 0;
        if (sscanf(profile.lines[i].key, "gpu.%d%n", &number, &end) == 1 && end && number >= 0 && number < MOST_GPUS)
            profile.present[number] = 1;
    }
    for (int number = 0; number < MOST_GPUS; number++) {
        char key[32];
        snprintf(key, sizeof key, "gpu.%d", number);
        const char *value = find(key);
        if (value && strcmp(value, "!Missing") == 0)
            profile.present[number] = 0;
    }
}

static char *contents(FILE *file, size_t bytes)
{
    char *text = malloc(bytes + 1);
    if (text)
        text[fread(text, 1, bytes, file)] = '\0';
    return text;
}

static int same_file(const struct stat *one, const struct stat *other)
{
    return one->st_ino == other->st_ino && one->st_size == other->st_size &&
           one->st_mtim.tv_sec == other->st_mtim.tv_sec && one->st_mtim.tv_nsec == other->st_mtim.tv_nsec;
}

/* Have the profile as it is on disk now. Called with the lock held. */
static void refresh(void)
{
    const char *path = getenv(PATH_VARIABLE);
    struct stat now;
    path = path && *path ? path : DEFAULT_PATH;
    if (profile.readable && stat(path, &now) == 0 && same_file(&now, &profile.seen))
        return;
    FILE *file = fopen(path, "re");
    profile.readable = file && fstat(fileno(file), &now) == 0;
    if (profile.readable) {
        free(profile.text);
        free(profile.lines);
        profile.lines = NULL;
        profile.count = 0;
        profile.text = contents(file, (size_t)now.st_size);
        profile.seen = now;
        profile.readable = profile.text != NULL;
        if (profile.readable)
            split();
        find_gpus();
    }
    if (file)
        fclose(file);
}

/* What a driver does that waits for hardware that is gone. Only a signal that kills ends it. */
static void hang(void)
{
    for (;;)
        pause();
}

int look(const char *key, char value[VALUE_BYTES])
{
    pthread_mutex_lock(&lock);
    refresh();
    const char *found = profile.readable ? find(key) : NULL;
    int code = found ? SUCCESS : NOT_SUPPORTED;
    if (!profile.readable)
        code = DRIVER_NOT_LOADED;
    else if (found)
        snprintf(value, VALUE_BYTES, "%s", found);
    pthread_mutex_unlock(&lock);
    if (code == SUCCESS && strcmp(value, "!HANG") == 0)
        hang();
    return code == SUCCESS && value[0] == '!' ? error_code(value + 1) : code;
}

int look_gpu(const struct gpu *gpu, const char *key, char value[VALUE_BYTES])
{
    char full[128];
    snprintf(full, sizeof full, "gpu.%d", gpu->number);
    int code = look(full, value);
    if (code != SUCCESS && code != NOT_SUPPORTED) /* the GPU as a whole is lost */
        return code;
    snprintf(full, sizeof full, "gpu.%d.%s", gpu->number, key);
    return look(full, value);
}

int look_numbers(const struct gpu *gpu, const char *key, unsigned long long *numbers, size_t room, size_t *count)
{
    char value[VALUE_BYTES], *rest = NULL;
    int code = look_gpu(gpu, key, value);
    *count = 0;
    if (code)
        return code;
    for (char *word = strtok_r(value, " ,", &rest); word; word = strtok_r(NULL, " ,", &rest)) {
        char *end;
        errno = 0;
        unsigned long long number = strtoull(word, &end, 0);
        if (errno || *end || *count == room)
            return UNKNOWN;
        numbers[(*count)++] = number;
    }
    return SUCCESS;
}

int look_number(const struct gpu *gpu, const char *key, unsigned long long *number)
{
    size_t count;
    int code = look_numbers(gpu, key, number, 1, &count);
    return code ? code : count == 1 ? SUCCESS : UNKNOWN;
}

int look_text(const struct gpu *gpu, const char *key, char *text, unsigned int room)
{
    char value[VALUE_BYTES];
    int code = gpu ? look_gpu(gpu, key, value) : look(key, value);
    if (code)
        return code;
    if (!text || strlen(value) + 1 > room)
        return text ? INSUFFICIENT_SIZE : INVALID_ARGUMENT;
    strcpy(text, value);
    return SUCCESS;
}

int profile_readable(void)
{
    pthread_mutex_lock(&lock);
    refresh();
    int readable = profile.readable;
    pthread_mutex_unlock(&lock);
    return readable;
}

size_t gpus_present(int numbers[MOST_GPUS])
{
    size_t count = 0;
    pthread_mutex_lock(&lock);
    refresh();
    for (int number = 0; profile.readable && number < MOST_GPUS; number++)
        if (profile.present[number])
            numbers[count++] = number;
    pthread_mutex_unlock(&lock);
    return count;
}
