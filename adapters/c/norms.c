/* Layer norm, RMS norm and batch norm in C, as a subject of normative, the conformance suite for normalization layers.
 *
 *     cc -std=c11 -O2 -o norms norms.c -lm
 *     normative check --subject ./norms
 *
 * A subject reads requests on standard input and writes replies on standard output. Each is a frame: the length of a
 * document, then the document, a safetensors byte string. golden/examples/README.md explains the bytes.
 *
 * The file goes from the pipe to the layers: memory, frames, JSON, documents, replies, layers, the conversation. To serve
 * a layer of your own, replace the part "Layers". What cannot be read ends the program with a line on standard error and
 * status 1; nothing that is read is trusted.
 */

#include <assert.h>
#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static_assert(sizeof(float) == 4 && FLT_MANT_DIG == 24, "float is IEEE binary32");
static_assert(sizeof(double) == 8 && DBL_MANT_DIG == 53, "double is IEEE binary64");

/* Ends the program: nobody can answer what was read. */
static _Noreturn void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("norms: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(EXIT_FAILURE);
}

/* --- Memory: what a request needs lives until its reply is written. -------------------------------------------- */

struct block {
    struct block *next;
    max_align_t memory[];
};

static struct block *blocks;

static void *allocate(size_t count, size_t size) {
    if (size != 0 && count > (SIZE_MAX - sizeof(struct block)) / size) {
        die("%zu elements of %zu bytes are more than there is memory for", count, size);
    }
    struct block *block = calloc(1, sizeof(struct block) + count * size);
    if (block == NULL) {
        die("there is no memory for %zu elements of %zu bytes", count, size);
    }
    block->next = blocks;
    blocks = block;
    return block->memory;
}

static void free_all(void) {
    while (blocks != NULL) {
        struct block *next = blocks->next;
        free(blocks);
        blocks = next;
    }
}

/* A text that grows. */
struct text {
    char *data;
    size_t length, capacity;
};

static void put(struct text *text, const void *data, size_t length) {
    if (length > SIZE_MAX / 4 - text->length) {
        die("a text is longer than there is memory for");
    }
    if (text->length + length > text->capacity) {
        size_t capacity = 2 * (text->length + length);
        char *grown = allocate(capacity, 1);
        if (text->length > 0) {
            memcpy(grown, text->data, text->length);
        }
        text->data = grown;
        text->capacity = capacity;
    }
    if (length > 0) {
        memcpy(text->data + text->length, data, length);
        text->length += length;
    }
}

static void put_string(struct text *text, const char *string) {
    put(text, string, strlen(string));
}

static void put_number(struct text *text, size_t number) {
    char digits[32];
    put(text, digits, (size_t)snprintf(digits, sizeof digits, "%zu", number));
}

/* A string of JSON, in its quotes. */
static void put_quoted(struct text *text, const char *data, size_t length) {
    put_string(text, "\"");
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)data[i];
        if (byte < 0x20) {
            char escape[8];
            put(text, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", byte));
        } else {
            if (byte == '"' || byte == '\\') {
                put_string(text, "\\");
            }
            put(text, data + i, 1);
        }
    }
    put_string(text, "\"");
}

/* --- Frames: a document behind its length, in 8 bytes, the lowest first. ---------------------------------------- */

static uint64_t read_integer(const unsigned char *bytes, int size) {
    uint64_t value = 0;
    for (int i = size - 1; i >= 0; i--) {
        value = value << 8 | bytes[i];
    }
    return value;
}

static void write_integer(unsigned char *bytes, uint64_t value, int size) {
    for (int i = 0; i < size; i++) {
        bytes[i] = (unsigned char)(value >> 8 * i & 0xff);
    }
}

/* The next document, or false at the end of the input. Memory grows with what arrives, not with what is declared. */
static bool read_frame(struct text *document) {
    unsigned char prefix[8];
    size_t arrived = fread(prefix, 1, sizeof prefix, stdin);
    if (arrived == 0 && feof(stdin)) {
        return false;
    }
    if (arrived < sizeof prefix) {
        die("the pipe closed after %zu of the 8 bytes of a frame's length", arrived);
    }
    uint64_t declared = read_integer(prefix, 8);
    while (document->length < declared) {
        char chunk[65536];
        uint64_t left = declared - document->length;
        size_t wanted = left < sizeof chunk ? (size_t)left : sizeof chunk;
        size_t count = fread(chunk, 1, wanted, stdin);
        put(document, chunk, count);
        if (count < wanted) {
            die("the pipe closed after %zu of the %llu bytes of a frame", document->length, (unsigned long long)declared);
        }
    }
    return true;
}

static void write_all(const void *data, size_t length) {
    if (length > 0 && fwrite(data, 1, length, stdout) != length) {
        die("the reply cannot be written: %s", strerror(errno));
    }
}

/* --- JSON -------------------------------------------------------------------------------------------------------- */

enum kind { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

/* A value; `key` is set where it is a member of an object. Strings, and a number's digits, end with a zero byte that
 * `length` does not count. */
struct json {
    enum kind kind;
    const char *key;
    const char *string;
    size_t length;
    struct json *first, *next;
};

/* No request nests deeper than this. */
enum { DEEPEST = 32 };

struct parser {
    const char *what;
    const char *at, *end;
};

static _Noreturn void syntax_error(const struct parser *parser, const char *expected) {
    die("%s is no JSON: %zu bytes before its end, expected %s", parser->what, (size_t)(parser->end - parser->at), expected);
}

static void skip_space(struct parser *parser) {
    while (parser->at < parser->end && strchr(" \t\r\n", *parser->at) != NULL && *parser->at != '\0') {
        parser->at++;
    }
}

/* Whether the character is next; if so, it is skipped. */
static bool accept(struct parser *parser, char wanted) {
    skip_space(parser);
    if (parser->at < parser->end && *parser->at == wanted) {
        parser->at++;
        return true;
    }
    return false;
}

static void expect(struct parser *parser, char wanted, const char *name) {
    if (!accept(parser, wanted)) {
        syntax_error(parser, name);
    }
}

static bool accept_word(struct parser *parser, const char *word) {
    size_t length = strlen(word);
    if ((size_t)(parser->end - parser->at) >= length && memcmp(parser->at, word, length) == 0) {
        parser->at += length;
        return true;
    }
    return false;
}

static unsigned parse_hex(struct parser *parser) {
    unsigned value = 0;
    for (int i = 0; i < 4; i++) {
        const char *digits = "0123456789abcdef";
        char digit = parser->at < parser->end ? *parser->at : '\0';
        const char *found = strchr(digits, digit >= 'A' && digit <= 'F' ? digit - 'A' + 'a' : digit);
        if (digit == '\0' || found == NULL) {
            syntax_error(parser, "four hexadecimal digits");
        }
        value = value << 4 | (unsigned)(found - digits);
        parser->at++;
    }
    return value;
}

static void put_utf8(struct text *text, unsigned code) {
    unsigned char bytes[4];
    size_t count = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = count - 1; i > 0; i--) {
        bytes[i] = (unsigned char)(0x80 | (code & 0x3f));
        code >>= 6;
    }
    bytes[0] = (unsigned char)(lead[count] | code);
    put(text, bytes, count);
}

static void parse_escape(struct parser *parser, struct text *text) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    char name = parser->at < parser->end ? *parser->at++ : '\0';
    const char *found = strchr(names, name);
    if (name != '\0' && found != NULL) {
        put(text, values + (found - names), 1);
    } else if (name == 'u') {
        unsigned code = parse_hex(parser);
        if (code >= 0xd800 && code < 0xdc00) {
            unsigned low = accept_word(parser, "\\u") ? parse_hex(parser) : 0;
            if (low < 0xdc00 || low > 0xdfff) {
                syntax_error(parser, "the other half of a surrogate pair");
            }
            code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        } else if (code >= 0xdc00 && code < 0xe000) {
            syntax_error(parser, "the first half of a surrogate pair");
        }
        put_utf8(text, code);
    } else {
        syntax_error(parser, "an escape sequence");
    }
}

static struct text parse_string(struct parser *parser) {
    struct text text = {0};
    expect(parser, '"', "a string");
    for (;;) {
        const char *run = parser->at;
        while (parser->at < parser->end && *parser->at != '"' && *parser->at != '\\' && (unsigned char)*parser->at >= 0x20) {
            parser->at++;
        }
        put(&text, run, (size_t)(parser->at - run));
        if (parser->at == parser->end || (unsigned char)*parser->at < 0x20) {
            syntax_error(parser, "the end of a string");
        }
        if (*parser->at++ == '"') {
            put(&text, "", 1);
            text.length--;
            return text;
        }
        parse_escape(parser, &text);
    }
}

static void skip_digits(struct parser *parser) {
    const char *first = parser->at;
    while (parser->at < parser->end && *parser->at >= '0' && *parser->at <= '9') {
        parser->at++;
    }
    if (parser->at == first) {
        syntax_error(parser, "a digit");
    }
}

static struct text parse_number(struct parser *parser) {
    const char *first = parser->at;
    struct text text = {0};
    accept_word(parser, "-");
    if (!accept_word(parser, "0")) {
        skip_digits(parser);
    }
    if (accept_word(parser, ".")) {
        skip_digits(parser);
    }
    if (accept_word(parser, "e") || accept_word(parser, "E")) {
        if (!accept_word(parser, "-")) {
            accept_word(parser, "+");
        }
        skip_digits(parser);
    }
    put(&text, first, (size_t)(parser->at - first));
    put(&text, "", 1);
    text.length--;
    return text;
}

static struct json *parse_value(struct parser *parser, int depth) {
    struct json *value = allocate(1, sizeof *value);
    if (depth > DEEPEST) {
        syntax_error(parser, "less nesting");
    }
    skip_space(parser);
    if (parser->at == parser->end) {
        syntax_error(parser, "a value");
    }
    if (*parser->at == '{' || *parser->at == '[') {
        bool object = *parser->at++ == '{';
        char close = object ? '}' : ']';
        struct json **last = &value->first;
        value->kind = object ? JSON_OBJECT : JSON_ARRAY;
        if (accept(parser, close)) {
            return value;
        }
        do {
            const char *key = NULL;
            if (object) {
                struct text name = parse_string(parser);
                key = name.data;
                if (strlen(key) != name.length) {
                    syntax_error(parser, "a key without a zero byte");
                }
                expect(parser, ':', "a colon");
            }
            *last = parse_value(parser, depth + 1);
            (*last)->key = key;
            last = &(*last)->next;
        } while (accept(parser, ','));
        expect(parser, close, object ? "a comma or the object's end" : "a comma or the array's end");
        return value;
    }
    struct text text = {0};
    if (*parser->at == '"') {
        value->kind = JSON_STRING;
        text = parse_string(parser);
    } else if (accept_word(parser, "null")) {
        value->kind = JSON_NULL;
    } else if (accept_word(parser, "true")) {
        value->kind = JSON_TRUE;
    } else if (accept_word(parser, "false")) {
        value->kind = JSON_FALSE;
    } else {
        value->kind = JSON_NUMBER;
        text = parse_number(parser);
    }
    value->string = text.data;
    value->length = text.length;
    return value;
}

static struct json *parse(const char *what, const char *data, size_t length) {
    struct parser parser = {what, data, data + length};
    struct json *value = parse_value(&parser, 0);
    skip_space(&parser);
    if (parser.at < parser.end) {
        syntax_error(&parser, "nothing more");
    }
    if (value->kind != JSON_OBJECT) {
        die("%s is no JSON object", what);
    }
    return value;
}

/* The member of an object, NULL where there is none. */
static const struct json *member(const struct json *object, const char *key) {
    if (object == NULL || object->kind != JSON_OBJECT) {
        return NULL;
    }
    for (const struct json *value = object->first; value != NULL; value = value->next) {
        if (strcmp(value->key, key) == 0) {
            return value;
        }
    }
    return NULL;
}

static bool is_text(const struct json *value, const char *text) {
    return value != NULL && value->kind == JSON_STRING && strcmp(value->string, text) == 0;
}

static const char *text_of(const struct json *object, const char *key) {
    const struct json *value = member(object, key);
    if (value == NULL || value->kind != JSON_STRING) {
        die("%s is missing, or is no string", key);
    }
    return value->string;
}

/* A float: a number, or one of three strings. */
static double number_of(const struct json *object, const char *key) {
    const struct json *value = member(object, key);
    if (value != NULL && value->kind == JSON_NUMBER) {
        return strtod(value->string, NULL);
    }
    if (is_text(value, "nan")) {
        return (double)NAN;
    }
    if (!is_text(value, "inf") && !is_text(value, "-inf")) {
        die("%s is missing, or is no number", key);
    }
    return value->string[0] == '-' ? -HUGE_VAL : HUGE_VAL;
}

/* A count: digits alone. */
static size_t count_of(const struct json *value, const char *what) {
    if (value == NULL || value->kind != JSON_NUMBER || strspn(value->string, "0123456789") != value->length) {
        die("%s is missing, or is no count", what);
    }
    errno = 0;
    unsigned long long count = strtoull(value->string, NULL, 10);
    if (errno == ERANGE || count > SIZE_MAX) {
        die("%s is %s, more than there is memory for", what, value->string);
    }
    return (size_t)count;
}

/* --- Documents: tensors, and JSON about them. ------------------------------------------------------------------- */

enum dtype { F64, F32, F16, BF16, I64 };

static const struct {
    const char *name;
    size_t size;
} DTYPES[] = {[F64] = {"F64", 8}, [F32] = {"F32", 4}, [F16] = {"F16", 2}, [BF16] = {"BF16", 2}, [I64] = {"I64", 8}};

/* Dimensions of a tensor at most. */
enum { RANK = 64 };

struct shape {
    size_t rank, size[RANK];
};

struct tensor {
    const char *name;
    enum dtype dtype;
    struct shape shape;
    size_t count;
    unsigned char *bytes;
    size_t begin;
    struct tensor *next;
};

/* The number of elements. Sizes next to a zero are multiplied too: no count that is computed from them overflows. */
static size_t count_elements(const struct shape *shape) {
    size_t product = 1;
    bool empty = false;
    for (size_t i = 0; i < shape->rank; i++) {
        size_t size = shape->size[i];
        empty = empty || size == 0;
        if (size != 0 && product > SIZE_MAX / 8 / size) {
            die("a tensor's sizes multiply to more than there is memory for");
        }
        product *= size == 0 ? 1 : size;
    }
    return empty ? 0 : product;
}

static struct shape read_shape(const struct json *sizes, const char *what) {
    struct shape shape = {0};
    if (sizes == NULL || sizes->kind != JSON_ARRAY) {
        die("%s is missing, or is no list", what);
    }
    for (const struct json *size = sizes->first; size != NULL; size = size->next) {
        if (shape.rank == RANK) {
            die("%s has more than %d dimensions", what, RANK);
        }
        shape.size[shape.rank++] = count_of(size, what);
    }
    return shape;
}

static struct tensor *read_tensor(const struct json *entry, unsigned char *data, size_t length) {
    struct tensor *tensor = allocate(1, sizeof *tensor);
    const char *dtype = text_of(entry, "dtype");
    size_t index = 0;
    while (index < sizeof DTYPES / sizeof DTYPES[0] && strcmp(dtype, DTYPES[index].name) != 0) {
        index++;
    }
    if (index == sizeof DTYPES / sizeof DTYPES[0]) {
        die("a tensor has the data type %s, which the protocol has not", dtype);
    }
    struct shape offsets = read_shape(member(entry, "data_offsets"), "data_offsets");
    if (offsets.rank != 2 || offsets.size[0] > offsets.size[1] || offsets.size[1] > length) {
        die("a tensor's data_offsets are not two places in the document, in order");
    }
    tensor->name = entry->key;
    tensor->dtype = (enum dtype)index;
    tensor->shape = read_shape(member(entry, "shape"), "a tensor's shape");
    tensor->count = count_elements(&tensor->shape);
    tensor->begin = offsets.size[0];
    tensor->bytes = data + tensor->begin;
    if (offsets.size[1] - offsets.size[0] != tensor->count * DTYPES[index].size) {
        die("a tensor's shape does not fit its data_offsets");
    }
    return tensor;
}

/* The message of a document, and its tensors in the order of their bytes. */
static const struct json *read_document(struct text *document, struct tensor **tensors) {
    unsigned char *bytes = (unsigned char *)document->data;
    uint64_t header_length = document->length < 8 ? 0 : read_integer(bytes, 8);
    if (document->length < 8 || header_length > document->length - 8) {
        die("a document of %zu bytes is shorter than its header", document->length);
    }
    unsigned char *data = bytes + 8 + header_length;
    size_t length = document->length - 8 - (size_t)header_length;
    const struct json *header = parse("a document's header", document->data + 8, (size_t)header_length);
    const struct json *message = member(member(header, "__metadata__"), "normative");
    if (message == NULL || message->kind != JSON_STRING) {
        die("a document has no metadata key \"normative\"");
    }
    *tensors = NULL;
    size_t used = 0;
    for (const struct json *entry = header->first; entry != NULL; entry = entry->next) {
        if (strcmp(entry->key, "__metadata__") != 0) {
            struct tensor *tensor = read_tensor(entry, data, length), **place = tensors;
            while (*place != NULL && (*place)->begin < tensor->begin) {
                place = &(*place)->next;
            }
            tensor->next = *place;
            *place = tensor;
            used += tensor->count * DTYPES[tensor->dtype].size;
            if (used > length) {
                die("a document's tensors overlap");
            }
        }
    }
    if (used != length) {
        die("a document's tensors leave bytes unused");
    }
    return parse("a message", message->string, message->length);
}

static const struct tensor *find(const struct tensor *tensors, const char *name) {
    while (tensors != NULL && strcmp(tensors->name, name) != 0) {
        tensors = tensors->next;
    }
    return tensors;
}

/* An element of F64 or F32, in double precision. */
static double get(const struct tensor *tensor, size_t index) {
    if (tensor->dtype == F64) {
        uint64_t bits = read_integer(tensor->bytes + 8 * index, 8);
        double value;
        memcpy(&value, &bits, sizeof value);
        return value;
    }
    uint32_t bits = (uint32_t)read_integer(tensor->bytes + 4 * index, 4);
    float value;
    memcpy(&value, &bits, sizeof value);
    return (double)value;
}

static void set(struct tensor *tensor, size_t index, double value) {
    if (tensor->dtype == F64) {
        uint64_t bits;
        memcpy(&bits, &value, sizeof bits);
        write_integer(tensor->bytes + 8 * index, bits, 8);
        return;
    }
    float rounded = (float)value;
    uint32_t bits;
    memcpy(&bits, &rounded, sizeof bits);
    write_integer(tensor->bytes + 4 * index, bits, 4);
}

/* --- Replies ----------------------------------------------------------------------------------------------------- */

struct reply {
    struct text message;
    struct tensor *first;
};

/* Another tensor of the reply, like `like`. */
static struct tensor *add_tensor(struct reply *reply, const char *name, const struct tensor *like) {
    struct tensor *tensor = allocate(1, sizeof *tensor), **last = &reply->first;
    *tensor = *like;
    tensor->name = name;
    tensor->bytes = allocate(like->count, DTYPES[like->dtype].size);
    tensor->next = NULL;
    while (*last != NULL) {
        last = &(*last)->next;
    }
    *last = tensor;
    return tensor;
}

static void write_reply(const struct reply *reply) {
    struct text header = {0};
    put_string(&header, "{\"__metadata__\":{\"normative\":");
    put_quoted(&header, reply->message.data, reply->message.length);
    put_string(&header, "}");
    size_t offset = 0;
    for (const struct tensor *tensor = reply->first; tensor != NULL; tensor = tensor->next) {
        put_string(&header, ",");
        put_quoted(&header, tensor->name, strlen(tensor->name));
        put_string(&header, ":{\"dtype\":\"");
        put_string(&header, DTYPES[tensor->dtype].name);
        put_string(&header, "\",\"shape\":[");
        for (size_t i = 0; i < tensor->shape.rank; i++) {
            put_string(&header, i == 0 ? "" : ",");
            put_number(&header, tensor->shape.size[i]);
        }
        put_string(&header, "],\"data_offsets\":[");
        put_number(&header, offset);
        put_string(&header, ",");
        offset += tensor->count * DTYPES[tensor->dtype].size;
        put_number(&header, offset);
        put_string(&header, "]}");
    }
    put_string(&header, "}");
    while (header.length % 8 != 0) {
        put_string(&header, " ");
    }
    unsigned char lengths[16];
    write_integer(lengths, (uint64_t)8 + header.length + offset, 8);
    write_integer(lengths + 8, header.length, 8);
    write_all(lengths, sizeof lengths);
    write_all(header.data, header.length);
    for (const struct tensor *tensor = reply->first; tensor != NULL; tensor = tensor->next) {
        write_all(tensor->bytes, tensor->count * DTYPES[tensor->dtype].size);
    }
    if (fflush(stdout) != 0) {
        die("the reply cannot be written: %s", strerror(errno));
    }
}

/* --- Layers ------------------------------------------------------------------------------------------------------ */

/* A call, and the reply to it as far as it has come. */
struct call {
    const char *id;
    const struct json *operation;
    bool train;
    const struct tensor *tensors, *input, *weight, *bias;
    struct reply *reply;
};

/* The reply's message; NULL for `kind` and `why` where there is none. */
static void say(struct call *call, const char *type, const char *kind, const char *why) {
    struct text *message = &call->reply->message;
    put_string(message, "{\"type\":\"");
    put_string(message, type);
    put_string(message, "\",\"id\":");
    put_string(message, call->id);
    if (kind != NULL) {
        put_string(message, ",\"kind\":\"");
        put_string(message, kind);
        put_string(message, "\"");
    }
    if (why != NULL) {
        put_string(message, ",\"message\":");
        put_quoted(message, why, strlen(why));
    }
    put_string(message, "}");
}

static void refuse(struct call *call, const char *kind, const char *why) {
    say(call, "refusal", kind, why);
}

/* Elements that share statistics: `runs` runs of `length` elements, `stride` apart. */
struct group {
    size_t first, runs, stride, length;
};

/* The mean of the elements less `centre`, or of the squares of that. */
static double mean_of(const struct tensor *input, const struct group *group, double centre, bool squared) {
    double sum = 0;
    for (size_t run = 0; run < group->runs; run++) {
        for (size_t i = 0; i < group->length; i++) {
            double deviation = get(input, group->first + run * group->stride + i) - centre;
            sum += squared ? deviation * deviation : deviation;
        }
    }
    return sum / ((double)group->runs * (double)group->length);
}

/* Whether every tensor of the names is of the input's data type and, where `shape` is given, of that shape; refuses if
 * not. */
static bool fit(struct call *call, const char *const *names, const struct shape *shape) {
    for (; *names != NULL; names++) {
        const struct tensor *tensor = find(call->tensors, *names);
        if (tensor != NULL && shape == NULL && tensor->dtype != call->input->dtype) {
            refuse(call, "dtype", "a parameter or a statistic has another data type than the input");
            return false;
        }
        if (tensor != NULL && shape != NULL &&
            (tensor->shape.rank != shape->rank ||
             memcmp(tensor->shape.size, shape->size, shape->rank * sizeof shape->size[0]) != 0)) {
            refuse(call, "shape", "a parameter or a statistic has a shape that does not fit");
            return false;
        }
    }
    return true;
}

/* Layer norm, and RMS norm where nothing is subtracted: y = (x - mean) / sqrt(mean square + eps) * weight + bias over the
 * trailing dimensions. */
static void trailing_norm(struct call *call, bool centred) {
    static const char *const PARAMETERS[] = {"weight", "bias", NULL};
    const struct tensor *input = call->input;
    struct shape shape = read_shape(member(call->operation, "normalized_shape"), "normalized_shape");
    const struct json *given = member(call->operation, "eps");
    double eps;
    if (!centred && given != NULL && given->kind == JSON_NULL) {
        eps = input->dtype == F64 ? DBL_EPSILON : (double)FLT_EPSILON;
    } else {
        eps = number_of(call->operation, "eps");
    }
    if (!fit(call, PARAMETERS, NULL)) {
        return;
    }
    const struct shape *whole = &input->shape;
    if (shape.rank == 0 || shape.rank > whole->rank ||
        memcmp(whole->size + (whole->rank - shape.rank), shape.size, shape.rank * sizeof shape.size[0]) != 0) {
        refuse(call, "shape", "the input's shape does not end in normalized_shape, which has one dimension at least");
        return;
    }
    if (!fit(call, PARAMETERS, &shape)) {
        return;
    }
    struct tensor *output = add_tensor(call->reply, "output", input);
    size_t length = count_elements(&shape);
    for (size_t first = 0; first < input->count; first += length) {
        struct group row = {first, 1, 0, length};
        double mean = centred ? mean_of(input, &row, 0, false) : 0;
        double deviation = sqrt(mean_of(input, &row, mean, true) + eps);
        for (size_t i = 0; i < length; i++) {
            double y = (get(input, first + i) - mean) / deviation;
            y = call->weight == NULL ? y : y * get(call->weight, i);
            set(output, first + i, call->bias == NULL ? y : y + get(call->bias, i));
        }
    }
    say(call, "answer", NULL, NULL);
}

/* Batch norm's state as it is returned. */
struct state {
    struct tensor *mean, *var, *counter;
};

/* Copies of the state tensors that were sent. */
static struct state return_state(struct call *call) {
    static const char *const NAMES[] = {"num_batches_tracked", "running_mean", "running_var"};
    struct tensor *returned[3] = {NULL, NULL, NULL};
    for (size_t i = 0; i < 3; i++) {
        const struct tensor *sent = find(call->tensors, NAMES[i]);
        if (sent != NULL) {
            returned[i] = add_tensor(call->reply, NAMES[i], sent);
            memcpy(returned[i]->bytes, sent->bytes, sent->count * DTYPES[sent->dtype].size);
        }
    }
    struct state state = {returned[1], returned[2], returned[0]};
    return state;
}

/* Moves a running statistic towards `value` by the fraction `momentum`. */
static void move(struct tensor *running, size_t channel, double momentum, double value) {
    set(running, channel, (1 - momentum) * get(running, channel) + momentum * value);
}

/* The kind of refusal by a rank that does not fit, NULL where it does. */
static const char *misfit(const struct json *spatial_dims, size_t rank) {
    if (spatial_dims != NULL && spatial_dims->kind == JSON_NULL) {
        return rank >= 2 ? NULL : "shape";
    }
    size_t dims = count_of(spatial_dims, "spatial_dims");
    if (dims < 1 || dims > 3) {
        return "parameter";
    }
    return rank == dims + 2 || (dims == 1 && rank == 2) ? NULL : "shape";
}

/* Batch norm: the same with the statistics of a channel, in evaluation with those that ran along in training. */
static void batch_norm(struct call *call) {
    static const char *const VECTORS[] = {"weight", "bias", "running_mean", "running_var", NULL};
    const struct tensor *input = call->input, *counter = find(call->tensors, "num_batches_tracked");
    const struct json *momentum = member(call->operation, "momentum");
    double eps = number_of(call->operation, "eps"), factor = 0;
    if (counter != NULL && (counter->dtype != I64 || counter->shape.rank != 0)) {
        die("num_batches_tracked is no I64 scalar");
    }
    const char *misfitting = misfit(member(call->operation, "spatial_dims"), input->shape.rank);
    if (misfitting != NULL) {
        refuse(call, misfitting, "the input's rank does not fit spatial_dims");
        return;
    }

    /* PyTorch counts a batch before it looks at it. */
    struct state state = return_state(call);
    uint64_t batches = 0;
    if (state.counter != NULL) {
        batches = read_integer(state.counter->bytes, 8) + (call->train ? 1 : 0);
        write_integer(state.counter->bytes, batches, 8);
    }
    struct shape channels = {1, {input->shape.size[1]}};
    if (!fit(call, VECTORS, NULL) || !fit(call, VECTORS, &channels)) {
        return;
    }
    size_t batch = input->shape.size[0], length = 1;
    for (size_t i = 2; i < input->shape.rank; i++) {
        length *= input->shape.size[i];
    }
    bool running = state.mean != NULL, training = call->train || !running;
    bool moves = call->train && running;
    if ((state.mean == NULL) != (state.var == NULL)) {
        refuse(call, "parameter", "one of running_mean and running_var is missing");
    } else if (training ? eps <= 0 : eps < 0) {
        refuse(call, "parameter", "eps is not positive");
    } else if (channels.size[0] == 0 && (call->weight != NULL || running)) {
        refuse(call, "empty", "there is no channel");
    } else if (moves && momentum != NULL && momentum->kind == JSON_NULL && state.counter != NULL && batches == 0) {
        refuse(call, "parameter", "the average of no batches");
    } else if (training && batch * length == 1) {
        refuse(call, "too_few_values", "one value per channel in training");
    }
    if (call->reply->message.length > 0) {
        return;
    }
    if (momentum != NULL && momentum->kind == JSON_NULL) {
        /* The average of all batches; without a counter the statistics stay. The counter is signed. */
        moves = moves && state.counter != NULL;
        factor = batches > INT64_MAX ? -1 / (double)(~batches + 1) : 1 / (double)batches;
    } else {
        factor = number_of(call->operation, "momentum");
    }

    struct tensor *output = add_tensor(call->reply, "output", input);
    size_t values = batch * length;
    for (size_t channel = 0; values > 0 && channel < channels.size[0]; channel++) {
        struct group group = {channel * length, batch, channels.size[0] * length, length};
        double mean, var;
        if (training) {
            mean = mean_of(input, &group, 0, false);
            var = mean_of(input, &group, mean, true);
        } else {
            mean = get(state.mean, channel);
            var = get(state.var, channel);
        }
        if (moves) {
            move(state.mean, channel, factor, mean);
            move(state.var, channel, factor, var * (double)values / ((double)values - 1));
        }
        double deviation = sqrt(var + eps);
        for (size_t run = 0; run < group.runs; run++) {
            for (size_t i = 0; i < length; i++) {
                size_t index = group.first + run * group.stride + i;
                double y = (get(input, index) - mean) / deviation;
                y = call->weight == NULL ? y : y * get(call->weight, channel);
                set(output, index, call->bias == NULL ? y : y + get(call->bias, channel));
            }
        }
    }
    say(call, "answer", NULL, NULL);
}

/* --- The conversation -------------------------------------------------------------------------------------------- */

static const char HELLO[] =
    "{\"type\":\"hello\",\"normative\":1,\"name\":\"norms in C\",\"version\":\"1\",\"device\":\"cpu\","
    "\"operations\":[\"layer_norm\",\"rms_norm\",\"batch_norm\"],\"dtypes\":[\"F64\",\"F32\"],"
    "\"arithmetic\":{\"accumulate\":\"F64\",\"depth\":\"any\"}}";

static bool is_true(const struct json *object, const char *key) {
    const struct json *value = member(object, key);
    return value != NULL && value->kind == JSON_TRUE;
}

/* What the call asks for that is not here; NULL where it can be made. */
static const char *lacking(const struct json *message, const struct call *call) {
    const struct json *layout = member(message, "layout"), *offset = member(layout, "offset");
    const struct json *dialect = member(call->operation, "dialect"), *name = member(call->operation, "name");
    if (!is_text(name, "layer_norm") && !is_text(name, "rms_norm") && !is_text(name, "batch_norm")) {
        return "only layer_norm, rms_norm and batch_norm are here";
    }
    if (dialect != NULL && !is_text(dialect, "pytorch")) {
        return "only the dialect pytorch is here";
    }
    if (layout != NULL && (!is_text(member(layout, "format"), "contiguous") || (offset != NULL && count_of(offset, "offset") != 0))) {
        return "only the contiguous layout is here";
    }
    if (is_true(message, "gradients") || is_true(message, "double_backward")) {
        return "gradients are not here";
    }
    if (call->input->dtype != F64 && call->input->dtype != F32) {
        return "only F64 and F32 are here";
    }
    return NULL;
}

static void answer(const struct json *message, const struct tensor *tensors, struct reply *reply) {
    const char *mode = text_of(message, "mode"), *why;
    const struct json *id = member(message, "id");
    count_of(id, "id");
    struct call call = {
        .id = id->string,
        .operation = member(message, "operation"),
        .train = strcmp(mode, "train") == 0,
        .tensors = tensors,
        .input = find(tensors, "input"),
        .weight = find(tensors, "weight"),
        .bias = find(tensors, "bias"),
        .reply = reply,
    };
    if (!call.train && strcmp(mode, "eval") != 0) {
        die("there is no mode %s", mode);
    }
    const char *name = text_of(call.operation, "name");
    if (call.input == NULL) {
        die("a request has no tensor \"input\"");
    }
    if ((why = lacking(message, &call)) != NULL) {
        say(&call, "unsupported", NULL, why);
    } else if (strcmp(name, "batch_norm") == 0) {
        batch_norm(&call);
    } else {
        trailing_norm(&call, strcmp(name, "layer_norm") == 0);
    }
}

int main(void) {
    struct text document = {0};
    while (read_frame(&document)) {
        struct tensor *tensors;
        struct reply reply = {0};
        const struct json *message = read_document(&document, &tensors);
        const char *type = text_of(message, "type");
        if (strcmp(type, "request") == 0) {
            answer(message, tensors, &reply);
        } else if (strcmp(type, "hello") != 0) {
            die("there is no message of type %s", type);
        } else if (count_of(member(message, "normative"), "the protocol's version") != 1) {
            die("only version 1 of the protocol is here");
        } else {
            put_string(&reply.message, HELLO);
        }
        write_reply(&reply);
        free_all();
        memset(&document, 0, sizeof document);
    }
    return EXIT_SUCCESS;
}
