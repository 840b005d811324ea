/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The language: a table of expressions with their values as canonical JSON, and one of mistakes with the
 * place and words of the message. A case is one line, so that a new one costs nothing.
 */
#include "base/error.h"
#include "base/file.h"
#include "templates/language/functions.h"
#include "templates/language/parser.h"
#include "templates/templates.h"

#include <stdlib.h>
#include <string.h>

typedef struct Case {
    const char *expression, *expected;
} Case;

static const Case values[] = {
    /* literals and numbers */
    { "1", "1" },
    { "1.5", "1.5" },
    { "1e3", "1000" },
    { "1.25e-2 * 800", "10" },
    { "true", "true" },
    { "false", "false" },
    { "null", "null" },
    { "\"\"", "\"\"" },
    { "\"a\"", "\"a\"" },
    { "-5", "-5" },
    { "- 5", "-5" },
    { "--5", "5" },
    { "-0", "0" },
    { "!true", "false" },
    { "!!true", "true" },
    { "123456789012345678", "123456789012345678" },
    { "\"=${0.1 + 0.2}\"", "\"=0.3\"" },
    { "\"=${1/4}\"", "\"=0.25\"" },
    { "\"=${340282366920938463463374607431768211456 + 1}\"", "\"=340282366920938463463374607431768211457\"" },
    { "\"=${11 % 5.1}\"",
      "\"=0.80000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
      "000000000000000000000000000000000000000000000000000000024\"" },
    /* operators and precedence */
    { "1 + 2 * 3", "7" },
    { "(1 + 2) * 3", "9" },
    { "10 - 4 - 3", "3" },
    { "20 / 2 / 5", "2" },
    { "7 % 3", "1" },
    { "-7 % 3", "-1" },
    { "2 * -3", "-6" },
    { "1 < 2", "true" },
    { "2 <= 2", "true" },
    { "3 > 4", "false" },
    { "4 >= 4", "true" },
    { "1 == 1.0", "true" },
    { "1 == \"1\"", "false" },
    { "\"a\" != \"b\"", "true" },
    { "null == null", "true" },
    { "1 == null", "false" },
    { "[1, 2] == [1, 2]", "true" },
    { "[1, 2] == [2, 1]", "false" },
    { "{a = 1} == {a = 1}", "true" },
    { "{a = 1} == {b = 1}", "false" },
    { "true && false", "false" },
    { "true || false", "true" },
    { "true && false || true", "true" },
    { "true || true && false", "true" },
    { "1 + 1 == 2 && 3 > 2", "true" },
    { "!false && true", "true" },
    { "\"3\" + \"4\"", "7" },
    { "\"true\" && true", "true" },
    { "false && 1/0 == 1", "false" },
    { "1 +\n2", "3" },
    { "1 /* one */ + 2 // two", "3" },
    { "1 # comment", "1" },
    /* conditionals */
    { "true ? 1 : 2", "1" },
    { "false ? 1 : 2", "2" },
    { "1 > 2 ? \"a\" : 3 > 2 ? \"b\" : \"c\"", "\"b\"" },
    { "true ? 1 : \"b\"", "\"1\"" },
    { "true ? null : 1", "null" },
    { "false ? null : 1", "1" },
    { "true ? [] : [\"a\"]", "[]" },
    { "false ? [1] : [\"a\", 2]", "[\"a\",\"2\"]" },
    { "false ? {} : {a = 1}", "{\"a\":1}" },
    { "true ? 1 : 1/0", "1" },
    { "\"true\" ? 1 : 2", "1" },
    /* lists and objects */
    { "[]", "[]" },
    { "[1, \"a\", true]", "[1,\"a\",true]" },
    { "[1, 2, ]", "[1,2]" },
    { "[\n1,\n2\n]", "[1,2]" },
    { "{}", "{}" },
    { "{a = 1, b = 2}", "{\"a\":1,\"b\":2}" },
    { "{a : 1}", "{\"a\":1}" },
    { "{\n a = 1\n b = 2\n}", "{\"a\":1,\"b\":2}" },
    { "{\n a = 1,\n b = 2,\n}", "{\"a\":1,\"b\":2}" },
    { "{\n\n # nothing\n a = 1 # one\n\n}", "{\"a\":1}" },
    { "{\"a b\" = 1}", "{\"a b\":1}" },
    { "{(\"a${1}\") = 1}", "{\"a1\":1}" },
    { "{\"a${1}\" = 1}", "{\"a1\":1}" },
    { "{1 = \"x\"}", "{\"1\":\"x\"}" },
    { "{null = 1}", "{\"null\":1}" },
    { "{true = 1}", "{\"true\":1}" },
    { "{if = 1, in = 2}", "{\"if\":1,\"in\":2}" },
    { "{a = 1, a = 2}", "{\"a\":2}" },
    { "{a = {b = [1, {c = 2}]}}.a.b[1].c", "2" },
    { "[1, 2, 3][1]", "2" },
    { "[1, 2, 3].1", "2" },
    { "{a = 1}[\"a\"]", "1" },
    { "{a-b = 1}.a-b", "1" },
    { "[10, 20][\"1\"]", "20" },
    { "{\"1\" = 5}[1]", "5" },
    /* for */
    { "[for x in [1, 2, 3] : x * 2]", "[2,4,6]" },
    { "[for i, x in [\"a\", \"b\"] : \"${i}${x}\"]", "[\"0a\",\"1b\"]" },
    { "[for x in [1, 2, 3, 4] : x if x % 2 == 0]", "[2,4]" },
    { "[for k, v in {b = 2, a = 1} : \"${k}=${v}\"]", "[\"a=1\",\"b=2\"]" },
    { "[for v in {b = 2, a = 1} : v]", "[1,2]" },
    { "{for k, v in {a = 1} : upper(k) => v + 1}", "{\"A\":2}" },
    { "{for x in [\"a\", \"bb\", \"cc\"] : length(x) => x...}", "{\"1\":[\"a\"],\"2\":[\"bb\",\"cc\"]}" },
    { "{for x in [\"a\", \"b\"] : x => x if x != \"a\"}", "{\"b\":\"b\"}" },
    { "[\n for x in [1, 2] :\n x\n if x > 1\n]", "[2]" },
    { "{\n for x in [1] :\n x => x\n}", "{\"1\":1}" },
    { "[for x in [1, 2] : [for y in [x, x * 10] : y]]", "[[1,10],[2,20]]" },
    { "[for x in [] : x]", "[]" },
    { "[for for in [1] : for]", "[1]" },
    /* splats */
    { "[{a = 1}, {a = 2}][*].a", "[1,2]" },
    { "[{a = 1}, {a = 2}].*.a", "[1,2]" },
    { "[{a = [1, 2]}, {a = [3, 4]}][*].a[0]", "[1,3]" },
    { "[{a = [1, 2]}, {a = [3, 4]}].*.a[0]", "[1,2]" },
    { "[{a = {b = 1}}][*].a.b", "[1]" },
    { "{a = 1}[*].a", "[1]" },
    { "null[*]", "[]" },
    { "5[*]", "[5]" },
    { "[[1, 2], [3]][*][0]", "[1,3]" },
    { "[[{a = 1}], [{a = 2}]][*][*].a", "[[1],[2]]" },
    /* strings and templates */
    { "\"a\\tb\\nc\\\"d\\\\e\"", "\"a\\tb\\nc\\\"d\\\\e\"" },
    { "\"\\u00e4\\U0001F600\"", "\"\u00e4\U0001F600\"" },
    { "\"$${a} %%{b} $ % $$\"", "\"${a} %{b} $ % $$\"" },
    { "\"${1}\"", "1" },
    { "\"${[1, 2]}\"", "[1,2]" },
    { "\"x${1}\"", "\"x1\"" },
    { "\"${true}!\"", "\"true!\"" },
    { "\"${\"a${\"b\"}\"}c\"", "\"abc\"" },
    { "\"a ${ \"}\" } b\"", "\"a } b\"" },
    { "\"a  ${~ 1 ~}  b\"", "\"a1b\"" },
    { "\"a ${~ 1 } b\"", "\"a1 b\"" },
    { "\"%{ if true }yes%{ endif }\"", "\"yes\"" },
    { "\"%{ if false }yes%{ endif }\"", "\"\"" },
    { "\"%{ if 1 > 2 }yes%{ else }no%{ endif }\"", "\"no\"" },
    { "\"%{ for x in [1, 2, 3] }${x},%{ endfor }\"", "\"1,2,3,\"" },
    { "\"%{ for k, v in {a = 1} }${k}${v}%{ endfor }\"", "\"a1\"" },
    { "\"[%{ for x in [1, 2] ~} ${x} %{~ endfor }]\"", "\"[12]\"" },
    { "\"%{ for x in [1, 2] }%{ if x == 1 }one%{ else }two%{ endif }%{ endfor }\"", "\"onetwo\"" },
    { "\"${{\n a = 1\n}.a}\"", "1" },
    { "<<A\nx\n  y\nA\n", "\"x\\n  y\\n\"" },
    { "<<-A\n    x\n      y\n    A\n", "\"x\\n  y\\n\"" },
    { "<<-A\n  x\n\n  y\n  A\n", "\"x\\n\\ny\\n\"" },
    { "<<-A\n  ${1}\n    z\n  A\n", "\"1\\n  z\\n\"" },
    { "<<-A\n${1}\n    z\n  A\n", "\"1\\n    z\\n\"" },
    { "<<A\na\\n\"q\"\nA\n", "\"a\\\\n\\\"q\\\"\\n\"" },
    { "<<A\nA\n", "\"\"" },
    { "<<A\nAB\nA\n", "\"AB\\n\"" },
    { "<<A\n%{ for x in [1, 2] ~}\nv ${x}\n%{ endfor ~}\nA\n", "\"v 1\\nv 2\\n\"" },
    { "<<A\n%{ if true }\nx\n%{ endif }\nA\n", "\"\\nx\\n\\n\"" },
    { "<<A\r\nx\r\nA\r\n", "\"x\\r\\n\"" },
    { "upper(<<A\nx\nA\n)", "\"X\\n\"" },
    { "[<<A\nx\nA\n, 1]", "[\"x\\n\",1]" },
    { "{\n a = <<A\nx\nA\n b = 1\n}", "{\"a\":\"x\\n\",\"b\":1}" },
    /* numbers */
    { "abs(-3)", "3" },
    { "ceil(1.2)", "2" },
    { "floor(-1.2)", "-2" },
    { "max(1, 5, 3)", "5" },
    { "min([3, 2, 9]...)", "2" },
    { "sum([1, 2, 3.5])", "6.5" },
    { "parseint(\"ff\", 16)", "255" },
    { "parseint(\"-101\", 2)", "-5" },
    { "log(8, 2)", "3" },
    { "pow(2, 10)", "1024" },
    { "signum(-4)", "-1" },
    /* text */
    { "upper(\"abc\")", "\"ABC\"" },
    { "upper(\"\u00e4\")", "\"\u00c4\"" },
    { "lower(\"ABC\")", "\"abc\"" },
    { "title(\"hello big world\")", "\"Hello Big World\"" },
    { "chomp(\"a\\r\\n\\n\")", "\"a\"" },
    { "indent(2, \"a\\nb\")", "\"a\\n  b\"" },
    { "join(\", \", [\"a\", \"b\"], [1])", "\"a, b, 1\"" },
    { "join(\"-\", [])", "\"\"" },
    { "split(\",\", \"a,b,,c\")", "[\"a\",\"b\",\"\",\"c\"]" },
    { "split(\",\", \"\")", "[\"\"]" },
    { "replace(\"a.b.c\", \".\", \"-\")", "\"a-b-c\"" },
    { "substr(\"hello\", 1, 3)", "\"ell\"" },
    { "substr(\"hello\", -3, -1)", "\"llo\"" },
    { "substr(\"h\u00e9llo\", 1, 1)", "\"\u00e9\"" },
    { "strrev(\"h\u00e9llo\")", "\"oll\u00e9h\"" },
    { "startswith(\"hello\", \"he\")", "true" },
    { "endswith(\"hello\", \"lo\")", "true" },
    { "strcontains(\"hello\", \"ell\")", "true" },
    { "trim(\"??a?b?\", \"?\")", "\"a?b\"" },
    { "trimprefix(\"hello\", \"he\")", "\"llo\"" },
    { "trimsuffix(\"hello\", \"lo\")", "\"hel\"" },
    { "trimspace(\" \\n a b\\t\")", "\"a b\"" },
    { "format(\"%s is %d\", \"x\", 5)", "\"x is 5\"" },
    { "format(\"%05d|%-4s|%4s|%+d\", 42, \"a\", \"b\", 7)", "\"00042|a   |   b|+7\"" },
    { "format(\"%.2f %5.1f\", 3.14159, 2.5)", "\"3.14   2.5\"" },
    { "format(\"%x %X %o %b\", 255, 255, 8, 5)", "\"ff FF 10 101\"" },
    { "format(\"%q %v %#v %t %%\", \"a\\\"\", [1], \"s\", true)", "\"\\\"a\\\\\\\"\\\" [1] \\\"s\\\" true %\"" },
    { "format(\"%[2]s %[1]s\", \"a\", \"b\")", "\"b a\"" },
    { "format(\"%02d\", \"7\")", "\"07\"" },
    { "formatlist(\"%s-%d\", [\"a\", \"b\"], [1, 2])", "[\"a-1\",\"b-2\"]" },
    { "formatlist(\"%s.%s\", [\"a\", \"b\"], \"x\")", "[\"a.x\",\"b.x\"]" },
    { "regex(\"[a-z]+\", \"12ab34\")", "\"ab\"" },
    { "regex(\"(\\\\d+)-(\\\\d+)\", \"10-20\")", "[\"10\",\"20\"]" },
    { "regex(\"(?P<y>\\\\d+)-(?P<m>\\\\d+)\", \"10-20\")", "{\"m\":\"20\",\"y\":\"10\"}" },
    { "regexall(\"\\\\d\", \"a1b2\")", "[\"1\",\"2\"]" },
    { "regexall(\"x\", \"a1b2\")", "[]" },
    { "regex_replace(\"a1b22\", \"(\\\\d+)\", \"<$1>\")", "\"a<1>b<22>\"" },
    { "regex_replace(\"ab\", \"(?P<x>a)\", \"${\"$\"}{x}-\")", "\"a-b\"" },
    /* collections */
    { "length([1, 2])", "2" },
    { "length({a = 1})", "1" },
    { "length(\"h\u00e9\")", "2" },
    { "concat([1], [2, 3], [])", "[1,2,3]" },
    { "contains([\"a\", \"b\"], \"b\")", "true" },
    { "contains([1, 2], 3)", "false" },
    { "distinct([1, 2, 1, 3])", "[1,2,3]" },
    { "element([1, 2, 3], 4)", "2" },
    { "flatten([[1, [2]], 3, []])", "[1,2,3]" },
    { "index([\"a\", \"b\"], \"b\")", "1" },
    { "keys({b = 1, a = 2})", "[\"a\",\"b\"]" },
    { "values({b = 1, a = 2})", "[2,1]" },
    { "lookup({a = 1}, \"a\", 5)", "1" },
    { "lookup({a = 1}, \"b\", 5)", "5" },
    { "merge({a = 1, b = 2}, {b = 3}, null)", "{\"a\":1,\"b\":3}" },
    { "merge()", "{}" },
    { "range(3)", "[0,1,2]" },
    { "range(1, 4)", "[1,2,3]" },
    { "range(1, 8, 3)", "[1,4,7]" },
    { "range(3, 0)", "[3,2,1]" },
    { "range(0)", "[]" },
    { "reverse([1, 2, 3])", "[3,2,1]" },
    { "setunion([\"b\", \"a\"], [\"c\", \"a\"])", "[\"a\",\"b\",\"c\"]" },
    { "setintersection([1, 2, 3], [2, 3, 4])", "[2,3]" },
    { "setsubtract([1, 2, 3], [2])", "[1,3]" },
    { "setproduct([\"a\", \"b\"], [1, 2])", "[[\"a\",1],[\"a\",2],[\"b\",1],[\"b\",2]]" },
    { "slice([1, 2, 3, 4], 1, 3)", "[2,3]" },
    { "sort([\"b\", \"a\", \"c\"])", "[\"a\",\"b\",\"c\"]" },
    { "zipmap([\"a\", \"b\"], [1, 2])", "{\"a\":1,\"b\":2}" },
    { "chunklist([1, 2, 3], 2)", "[[1,2],[3]]" },
    { "coalesce(null, \"\", \"a\")", "\"a\"" },
    { "coalesce(null, 5)", "5" },
    { "coalescelist([], [1])", "[1]" },
    { "compact([\"a\", \"\", null, \"b\"])", "[\"a\",\"b\"]" },
    { "alltrue([true, \"true\"])", "true" },
    { "alltrue([])", "true" },
    { "anytrue([false, true])", "true" },
    { "anytrue([])", "false" },
    /* encodings, hashes, time, paths, conversion */
    { "base64encode(\"h\u00e9\")", "\"aMOp\"" },
    { "base64decode(\"aMOp\")", "\"h\u00e9\"" },
    { "textencodebase64(\"ab\", \"UTF-16LE\")", "\"YQBiAA==\"" },
    { "textdecodebase64(\"YQBiAA==\", \"UTF-16LE\")", "\"ab\"" },
    { "jsonencode({b = [1, null, true], a = \"<x>\"})", "\"{\\\"a\\\":\\\"\\\\u003cx\\\\u003e\\\",\\\"b\\\":[1,null,true]}\"" },
    { "jsondecode(\"{\\\"a\\\": [1, 0.1, null]}\").a[0]", "1" },
    { "\"=${jsondecode(\"0.1\") + 0.2}\"", "\"=0.3\"" },
    { "urlencode(\"a b/\u00e9~\")", "\"a+b%2F%C3%A9~\"" },
    { "md5(\"a\")", "\"0cc175b9c0f1b6a831c399e269772661\"" },
    { "sha1(\"a\")", "\"86f7e437faa5a7fce15d1ddcb9eaeaea377667b8\"" },
    { "sha256(\"a\")", "\"ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb\"" },
    { "substr(sha512(\"a\"), 0, 16)", "\"1f40fc92da241694\"" },
    { "uuidv5(\"dns\", \"www.example.com\")", "\"2ed6657d-e927-568b-95e1-2665a8aea6a2\"" },
    { "timestamp()", "\"2001-09-09T01:46:40Z\"" },
    { "formatdate(\"DD MMM YYYY hh:mm:ss ZZZ\", \"2024-02-03T04:05:06Z\")", "\"03 Feb 2024 04:05:06 UTC\"" },
    { "formatdate(\"EEEE, D MMMM YY 'at' H:mm AA\", \"2024-02-03T14:05:06+02:00\")", "\"Saturday, 3 February 24 at 2:05 PM\"" },
    { "formatdate(\"YYYYMMDD'T'hhmmssZ\", \"2024-02-03T14:05:06Z\")", "\"20240203T140506Z\"" },
    { "timeadd(\"2024-02-28T23:30:00Z\", \"1h30m\")", "\"2024-02-29T01:00:00Z\"" },
    { "timeadd(\"2024-01-01T00:00:00Z\", \"-1.5h\")", "\"2023-12-31T22:30:00Z\"" },
    { "basename(\"/a/b.txt\")", "\"b.txt\"" },
    { "dirname(\"/a/b.txt\")", "\"/a\"" },
    { "dirname(\"b.txt\")", "\".\"" },
    { "dirname(\"a/b/c\")", "\"a/b\"" },
    { "abspath(\"/a/../b\")", "\"/b\"" },
    { "pathexpand(\"/x\")", "\"/x\"" },
    { "try(1/0, 5)", "5" },
    { "try(nothing.here, {}.a, \"x\")", "\"x\"" },
    { "can(1/0)", "false" },
    { "can([1][0])", "true" },
    { "convert(\"5\", number)", "5" },
    { "convert([1, 2], list(string))", "[\"1\",\"2\"]" },
    { "convert([\"b\", \"a\", \"b\"], set(string))", "[\"a\",\"b\"]" },
    { "convert({a = 1, z = 9}, object({a = string, b = optional(number, 7)}))", "{\"a\":\"1\",\"b\":7}" },
    { "convert({a = 1}, map(string))", "{\"a\":\"1\"}" },
    { "convert([1, \"a\"], tuple([string, string]))", "[\"1\",\"a\"]" },
    { "fileexists(\"no-such-file\")", "false" },
    { "path.root", "\".\"" },
};

/* Where the message starts, and a part of its words. */
typedef struct Mistake {
    const char *expression, *place, *words;
} Mistake;

static const Mistake mistakes[] = {
    { "", "1:1", "expected a value here, found the end of the text" },
    { "1 +", "1:4", "expected a value here" },
    { "(1", "1:1", "'(' is never closed" },
    { "[1, 2", "1:1", "'[' is never closed" },
    { "{a = 1", "1:1", "'{' is never closed" },
    { "{a}", "1:3", "expected '=' and a value" },
    { "{a.b = 1}", "1:2", "must stand in parentheses" },
    { "1 2", "1:3", "expected the end of the expression" },
    { "\"abc", "1:1", "no closing quote" },
    { "\"a\nb\"", "1:1", "no closing quote" },
    { "'a'", "1:1", "double quotes" },
    { "\"\\q\"", "1:2", "this escape is unknown" },
    { "\"\\u12\"", "1:2", "4 hexadecimal digits" },
    { "\"\\u0000\"", "1:2", "no such character" },
    { "\"\\uD800\"", "1:2", "no such character" },
    { "\"${1\"", "1:2", "never closed with '}'" },
    { "\"${a b}\"", "1:6", "expected '}' here" },
    { "\"%{ if true }x\"", "1:2", "has no %{ endif }" },
    { "\"%{ for x in [1] }x\"", "1:2", "has no %{ endfor }" },
    { "\"%{ endif }\"", "1:2", "ends nothing that was begun" },
    { "\"%{ what }\"", "1:5", "expected if, else, endif, for or endfor" },
    { "<<A\nx\n", "1:1", "no line that says only A" },
    { "1 /* x", "1:3", "never closed with '*/'" },
    { "foo", "1:1", "there is nothing called 'foo'" },
    { "pat.root", "1:1", "did you mean 'path'?" },
    { "path.rot", "1:6", "did you mean 'root'?" },
    { "uper(\"a\")", "1:1", "did you mean 'upper'?" },
    { "vault(\"a\", \"b\")", "1:1", "needs a network service" },
    { "env(\"HOME\")", "1:1", "only in the default of a variable" },
    { "upper()", "1:1", "needs 1 argument, not 0" },
    { "upper(\"a\", \"b\")", "1:1", "needs 1 argument, not 2" },
    { "upper([])", "1:7", "argument 1: a string is needed, not a tuple" },
    { "upper(null)", "1:7", "can't be null" },
    { "length(5)", "1:8", "a number has no length" },
    { "1/0", "1:3", "division by zero" },
    { "1 % 0", "1:5", "division by zero" },
    { "\"a\" + 1", "1:1", "a number is needed, not a string" },
    { "null + 1", "1:1", "this value is null" },
    { "!1", "1:2", "a bool is needed, not a number" },
    { "1 ? 2 : 3", "1:1", "true or false" },
    { "true ? 1 : [2]", "1:8", "must have one type" },
    { "true ? 1", "1:9", "expected ':'" },
    { "[1][1]", "1:5", "there is no element 1: the tuple has 1" },
    { "[1][-1]", "1:5", "not negative" },
    { "[1][0.5]", "1:5", "whole number" },
    { "{a = 1}.b", "1:9", "this object has no attribute 'b'" },
    { "{abc = 1}.abd", "1:11", "did you mean 'abc'?" },
    { "{a = 1}[\"b\"]", "1:9", "there is no element 'b'" },
    { "[{a = 1}].a", "1:11", "write [*]" },
    { "null.a", "1:1", "this value is null" },
    { "\"x${null}\"", "1:5", "null" },
    { "\"x${[1]}\"", "1:5", "a tuple can't be put into text" },
    { "[for x in 5 : x]", "1:11", "not a number" },
    { "[for x in null : x]", "1:11", "null" },
    { "[for x in [1] : x => x]", "1:19", "makes an object" },
    { "{for x in [1, 1] : \"a\" => x}", "1:20", "two elements have the key 'a'" },
    { "{for x in [1] : x}", "1:18", "expected '=>'" },
    { "[for x of [1] : x]", "1:8", "the word 'in'" },
    { "upper(\"a\" \"b\")", "1:11", "expected ',' or ')'" },
    { "min([]...)", "1:1", "at least 1 argument" },
    { "min(5...)", "1:5", "must be a list" },
    { "regex(\"(\", \"a\")", "1:7", "no regular expression" },
    { "regex(\"b\", \"a\")", "1:12", "does not match" },
    { "parseint(\"12x\", 10)", "1:10", "no whole number in base 10" },
    { "format(\"%d\", \"x\")", "1:14", "%d: a number is needed" },
    { "format(\"%s\")", "1:8", "asks for 1 argument, but 0 are given" },
    { "format(\"x\", 1)", "1:13", "uses 0 arguments, but 1 are given" },
    { "format(\"%y\", 1)", "1:8", "no verb" },
    { "base64decode(\"%\")", "1:14", "not base64" },
    { "base64decode(\"/w==\")", "1:14", "not UTF-8" },
    { "jsondecode(\"{\")", "1:12", "this is not JSON" },
    { "file(\"no-such-file\")", "1:6", "no-such-file" },
    { "formatdate(\"X\", \"2024-02-03T04:05:06Z\")", "1:12", "no field of a date" },
    { "timeadd(\"yesterday\", \"1h\")", "1:9", "no time like" },
    { "range(1, 2, 0)", "1:13", "never ends" },
    { "range(1000000000)", "1:1", "more than 100000" },
    { "element([], 0)", "1:9", "no elements" },
    { "lookup({}, \"a\")", "1:1", "needs 3 arguments, not 2" },
    { "convert(\"a\", number)", "1:9", "a number is needed" },
    { "convert(\"a\", strin)", "1:14", "did you mean 'string'?" },
    { "try(1/0)", "1:7", "division by zero" },
    { "a..b", "1:3", "name of an attribute" },
    { "@", "1:1", "expected a value" },
    { "1e99999", "1:1", "too large" },
    { "[\"\u00e4\U0001F600\", nope]", "1:8", "nothing called 'nope'" },
    { "1 +\n  nope", "2:3", "nothing called 'nope'" },
};

static char *evaluated(const char *expression, GError **error)
{
    g_autoptr(json_t) json = NULL;

    return template_evaluate(NULL, expression, &json, error) ? json_canonical(json) : NULL;
}

static void test_values(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(values); i++) {
        g_autoptr(GError) error = NULL;
        g_autofree char *text = evaluated(values[i].expression, &error);

        if (!text || strcmp(text, values[i].expected) != 0) {
            g_test_message("%s\n  gives %s\n  not   %s", values[i].expression, text ? text : error->message, values[i].expected);
            g_test_fail();
        }
    }
}

static void test_mistakes(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(mistakes); i++) {
        g_autoptr(GError) error = NULL;
        g_autofree char *text = evaluated(mistakes[i].expression, &error);
        g_autofree char *start = g_strdup_printf("expression:%s: ", mistakes[i].place);

        if (text || !g_str_has_prefix(error->message, start) || !strstr(error->message, mistakes[i].words)) {
            g_test_message("%s\n  gives %s\n  not   %s%s", mistakes[i].expression, text ? text : error->message, start,
                           mistakes[i].words);
            g_test_fail();
        }
    }
}

static void test_caret(void)
{
    g_autoptr(GError) error = NULL;

    g_assert_null(evaluated("[upper(\"\u00e4\"), no_such]", &error));
    g_assert_error(error, KILN_ERROR, KILN_ERROR_USAGE);
    g_assert_cmpstr(error->message, ==,
                    "expression:1:14: there is nothing called 'no_such' here\n"
                    "    [upper(\"\u00e4\"), no_such]\n"
                    "                 ^^^^^^^");
}

static void test_several(void)
{
    g_autoptr(GError) error = NULL;

    g_assert_null(evaluated("[foo, bar]", &error));
    g_assert_nonnull(strstr(error->message, "'foo'"));
    g_assert_nonnull(strstr(error->message, "'bar'"));
}

static char *repeated(const char *begin, const char *middle, const char *end, size_t n)
{
    GString *text = g_string_new(NULL);

    for (size_t i = 0; i < n; i++)
        g_string_append(text, begin);
    g_string_append(text, middle);
    for (size_t i = 0; i < n; i++)
        g_string_append(text, end);
    return g_string_free(text, FALSE);
}

static void test_depth(void)
{
    static const char *const shapes[][3] = {
        { "(", "1", ")" },     { "[", "", "]" },      { "{a=", "1", "}" }, { "-", "1", "" },    { "", "1", "+1" },
        { "", "{}", ".a" },    { "", "[]", "[0]" },   { "!", "true", "" }, { "\"${", "1", "}\"" }, { "true ? 1 : ", "1", "" },
        { "abs(", "1", ")" },  { "[for x in ", "[]", " : x]" }, { "", "x", "[*]" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(shapes); i++) {
        g_autofree char *deep = repeated(shapes[i][0], shapes[i][1], shapes[i][2], 100000);
        g_autofree char *fine = repeated(shapes[i][0], shapes[i][1], shapes[i][2], 50);
        g_autoptr(GError) error = NULL;
        g_autofree char *unused = NULL;

        g_assert_null(evaluated(deep, &error));
        g_assert_nonnull(strstr(error->message, "levels"));
        g_clear_error(&error);
        unused = evaluated(fine, &error);
        g_assert_true(!error || !strstr(error->message, "levels"));
    }
}

static void test_bytes(void)
{
    g_autoptr(GError) error = NULL;

    g_assert_null(evaluated("\"a\xff\"", &error));
    g_assert_nonnull(strstr(error->message, "expression:1:3: this file is not UTF-8"));
}

/* Nothing but mistakes: reading ends soon after the last one that is shown. */
static void test_mistakes_alone(void)
{
    g_autofree char *text = g_strnfill(1000000, '}');
    g_autoptr(Arena) arena = arena_new();
    Diagnostics diagnostics;

    diagnostics_init(&diagnostics, arena);
    (void)parse_body(source_new(&diagnostics, "x.hcl", text, 1000000), &diagnostics);
    g_assert_cmpuint(diagnostics.list->len, ==, DIAGNOSTICS_MAX);
    g_assert_cmpuint(diagnostics.count, <, DIAGNOSTICS_MAX + 10);
    diagnostics_clear(&diagnostics);
}

/* Every prefix of a rich text must end in a value or a message, never in a crash. */
static void test_prefixes(void)
{
    static const char text[] = "{ a = [for k, v in {x = 1, \"y${2}\" = 3} : upper(\"%{ if v > 1 ~} ${k} %{ else }b%{ endif }\") if v != null],"
                               " b = [{c = -1.5e2}][*].c[0] ? \"\\u00e4\" : <<-E\n  x ${1}\n  E\n }";

    for (size_t n = 0; n <= strlen(text); n++) {
        g_autofree char *prefix = g_strndup(text, n);
        g_autofree char *value = evaluated(prefix, NULL);

        (void)value;
    }
}

static void test_files(void)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *text = NULL;

    g_assert_true(g_file_set_contents("hello.tpl", "Hello ${name}!%{ for x in list } ${x}%{ endfor }\n", -1, NULL));
    g_assert_true(file_make_dirs("set/deep", 0755, NULL));
    g_assert_true(g_file_set_contents("set/a.txt", "A", -1, NULL));
    g_assert_true(g_file_set_contents("set/deep/b.txt", "B", -1, NULL));
    g_assert_true(g_file_set_contents("set/c.bin", "C\xff", -1, NULL));

    text = evaluated("[templatefile(\"hello.tpl\", {name = \"x\", list = [1, 2]}), file(\"set/a.txt\"), filebase64(\"set/c.bin\"), "
                     "fileexists(\"set/a.txt\"), fileset(\"set\", \"*.txt\"), fileset(\"set\", \"**/*.{txt,bin}\")]",
                     &error);
    g_assert_no_error(error);
    g_assert_cmpstr(text, ==, "[\"Hello x! 1 2\\n\",\"A\",\"Q/8=\",true,[\"a.txt\"],[\"a.txt\",\"c.bin\",\"deep/b.txt\"]]");
    g_assert_null(evaluated("templatefile(\"hello.tpl\", {nam = \"x\", list = []})", &error));
    g_assert_nonnull(strstr(error->message, "hello.tpl:1:9: there is nothing called 'name' here; did you mean 'nam'?"));
    g_clear_error(&error);
    g_assert_null(evaluated("file(\"set/c.bin\")", &error));
    g_assert_nonnull(strstr(error->message, "filebase64()"));
}

static void test_names(void)
{
    g_autofree const char **names = function_names();
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);

    for (size_t i = 0; names[i]; i++)
        g_assert_true(g_hash_table_add(seen, (gpointer)names[i]));
    g_assert_cmpuint(g_hash_table_size(seen), >=, 85);
}

int main(int argc, char **argv)
{
    g_setenv("SOURCE_DATE_EPOCH", "1000000000", TRUE);
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/language/expressions-have-their-values", test_values);
    g_test_add_func("/language/mistakes-are-placed-and-told", test_mistakes);
    g_test_add_func("/language/caret-stands-under-the-mistake", test_caret);
    g_test_add_func("/language/several-mistakes-are-told-at-once", test_several);
    g_test_add_func("/language/depth-is-bounded", test_depth);
    g_test_add_func("/language/nothing-but-mistakes-ends-soon", test_mistakes_alone);
    g_test_add_func("/language/bad-bytes-are-refused", test_bytes);
    g_test_add_func("/language/every-prefix-is-survived", test_prefixes);
    g_test_add_func("/language/files-are-read", test_files);
    g_test_add_func("/language/function-names-are-unique", test_names);
    return g_test_run();
}
