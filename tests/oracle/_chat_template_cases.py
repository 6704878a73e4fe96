"""Small templates over DATA. Each is rendered by jinja2 and here; a case on
which jinja2 fails must fail here too."""

from _chat_template_data import DATA
from _chat_template_edges import EDGES
from _chat_template_statements import TEMPLATES


# Each of these stands between {{ and }}.
EXPRESSIONS = r"""
n + 1
n - 10
n * 3
n / 2
7 / 7
n // 2
neg // 2
n % 3
neg % 3
n % -3
7.5 % 2
-7.5 % 2
-7.5 // 2
2 ** 10
2 ** -1
-2 ** 2
2.0 ** 0.5
n / 0
n // 0
n % 0
1.0 / 0
big
big * 1.0
x
tiny
huge
1e16
123456789012345680.0
1e15
0.1 + 0.2
100.0
1.5e3
1_000
0x1f
0b101
0o17
-x
+n
- - n
-s
-nil
yes
no
nil
true + true
yes + 1
yes == 1
1 == 1.0
1 == true
'1' == 1
nil == false
[1, 2] == [1, 2]
(1, 2) == [1, 2]
{'a': 1} == {'a': 1.0}
1 < 2 < 3
1 < 3 < 2
1 < 'a'
'a' < 'b'
'Z' < 'a'
[1, 2] < [1, 3]
nil < 1
1 != 2 and 2 != 3
1 in items
9 in items
'ell' in s
'' in s
1 in s
'a' in d
'b' in d
'b' not in d
1 in nil
1 in undefined_name
not 1 in items
not undefined_name | default(true)
not nil | default('x')
s and n
empty or n
nil or undefined_name or 'last'
no and undefined_name.x
s ~ n ~ nil ~ x ~ yes ~ undefined_name
s + 'x'
s + n
n + s
items + [4]
(1, 2) + (3,)
items + (1,)
'ab' * 3
3 * 'ab'
'ab' * -1
[1, 2] * 2
[0] * 0
'a' - 'b'
{} + {}
'yes' if n else 'no'
'yes' if empty else 'no'
'yes' if empty
('yes' if empty) is defined
'a' if no else 'b' if no else 'c'
s[0]
s[-1]
s[99]
s[1:4]
s[:3]
s[-3:]
s[::-1]
s[::2]
s[10:2:-2]
s[1:100]
s[::0]
s['x':]
u[6:12]
u[::-1]
u[-1]
u | length
items[0]
items[-1]
items[5]
items[5] is defined
items[1:]
items[:-1]
items[::-1]
items[-2:]
items['0']
items.0
items.1
nil[0]
nil.x
nil.x.y
undefined_name
undefined_name.x
undefined_name['x']
undefined_name()
undefined_name + 1
undefined_name == undefined_other
undefined_name | length
undefined_name | list
undefined_name is iterable
undefined_name is sequence
[undefined_name]
d
d.b
d['b']
d.missing
d.missing is defined
d.missing.x
d['missing']
d['key with space']
d.items is string
d['items']
d.items() | list
d.keys() | list
d.values() | list
d.items()
d.keys()
d.get('b')
d.get('zz')
d.get('zz', 5)
d.get()
d | items | list
d | length
deep.a.b.c[2].d
deep['a']['b'].c.1
nested
[1, 'a', None, true, 1.5, (1,), (), {}, {'k': 'v'}]
(1, 2)
(1,)
()
1, 2
{'a': 1, 'b': [1, 2], "c": {'d': none}}
{1: 'a', none: 'b', true: 'c', (1, 2): 'd'}
{[1]: 2}
{'a': 1, 'a': 2}
{1: 'x', 1.0: 'y', true: 'z'}
['it\'s', "say \"hi\"", 'both \' "', 'tab\t', 'nl\n', '\\', '\x01', 'é', '\u200b', '\xa0', '😀']
'a' 'b' "c"
"\u0041\x42\103\n|"
'\d\q\é\😀'
range(5)
range(5) | list
range(2, 10, 3) | list
range(5, 0, -2) | list
range(3)[1]
range(10)[2:5]
range(0)
range(0, 5, 0)
range(200000)
range('a')
s.upper()
s.lower()
u.upper()
u.lower()
u.title()
s.title()
"they're bill's".title()
s | title
"they're bill-ted (x)" | title
'hELLO wORLD'.capitalize()
'ßa' | capitalize
pad.strip()
pad.lstrip()
pad.rstrip()
pad | trim
'xxaxx'.strip('x')
'xyaxy' | trim('xy')
'\u2003a\u3000\x1c'.strip()
s.split()
s.split(', ')
s.split('l', 1)
s.rsplit('l', 1)
s.split('')
pad.split()
' a b  c '.split(none, 1)
' a b  c '.rsplit(none, 1)
'a,b,c'.split(',', -1)
s.split(sep='l', maxsplit=1)
lines.splitlines()
lines.splitlines(true)
'a\r\nb\x0bc\u2028d'.splitlines()
s.startswith('He')
s.startswith(('x', 'He'))
s.startswith(['x'])
s.endswith('ld')
s.startswith('llo', 2)
s.startswith('llo', 2, 4)
s.replace('l', 'L')
s.replace('l', 'L', 1)
s.replace('', '-')
u.replace('', '.')
s.find('o')
s.find('zz')
s.rfind('o')
u.find('x')
s.index('zz')
s.count('l')
s.count('')
'-'.join(words)
'-'.join([1])
'a-b-c'.partition('-')
'a-b-c'.rpartition('-')
'abc'.partition('-')
'abc'.removeprefix('a') ~ 'abc'.removesuffix('c')
'5'.zfill(3) ~ '-5'.zfill(4)
'ab'.center(7) ~ '|'
'abc'.center(6) ~ '|'
'ab'.ljust(5, '.') ~ 'ab'.rjust(5)
'abc1'.isalnum() ~ 'abc'.isalpha() ~ '12'.isdigit() ~ ' '.isspace()
'Abc'.islower() ~ 'abc'.islower() ~ 'ABC1'.isupper() ~ '1'.isupper()
'{} and {}'.format(1, 'b')
'{1} {0}'.format('a', 'b')
'{name!r:>6}|{n:05d}|{x:.2f}'.format(name='q', n=42, x=2.345)
'{0[1]} {1.b} {{}}'.format([1, 2], {'b': 3})
'{:,} {:x} {:+} {:^7}|'.format(1234567, 255, 5, 'mid')
'{}'.format()
'{'.format(1)
'%s is %d' % ('a', 3)
'%s' % 'x'
'%05.1f|%-5s|%5s|%x|%%' % (3.14159, 'ab', 'cd', 255)
'%(a)s-%(b)d' % {'a': 1, 'b': 2}
'%d' % 'x'
'%s %s' % ('a',)
'%s' % ('a', 'b')
'%s = %s' | format('a', 1)
s.nope
s.nope()
items.append(4)
items.append is defined
items.index(1) ~ items.count(3)
items.index(9)
d.pop('b')
d.update({})
d.copy()
(1, 2, 1).count(1)
n.x
n()
s()
s | upper | lower
n | string | length
nil | string
s | length
n | length
nil | length
items | first
none_list | first
none_list | first is defined
items | last
s | first ~ (s | last)
none_list | last
d | first
items | join
items | join(', ')
items | join(0)
s | join('-')
nested | join('|')
rows | join(',', attribute='name')
undefined_name | join(',')
nil | join(',')
items | sort
items | sort(reverse=true)
words | sort
words | sort(case_sensitive=true)
['a', 1] | sort
rows | sort(attribute='age') | map(attribute='name') | list
rows | sort(attribute='age,name') | map(attribute='name') | list
rows | sort(attribute='age', reverse=true) | map(attribute='name') | join(' ')
items | reverse | list
s | reverse
items | min ~ (items | max)
words | min
rows | max(attribute='age')
none_list | min
items | sum
rows | sum(attribute='age')
[[1], [2]] | sum(start=[])
['a'] | sum
words | unique | list
words | unique(case_sensitive=true) | list
rows | unique(attribute='age') | map(attribute='name') | list
rows | map(attribute='tags.0') | list
rows | map(attribute='zz', default='-') | list
rows | map('length') | list
words | map('upper') | join
words | map('replace', 'a', 'z') | list
words | map | list
nil | map('upper') | list
n | map('upper') | list
rows | selectattr('boss') | map(attribute='name') | list
rows | rejectattr('boss') | map(attribute='name') | list
rows | selectattr('age', 'equalto', 30) | map(attribute='name') | list
rows | selectattr('age', '>', 26) | list | length
rows | selectattr('name', 'in', ['bob', 'Cy']) | map(attribute='name') | join
rows | rejectattr('boss', 'defined') | map(attribute='name') | list
rows | selectattr('boss', 'undefined') | list | length
items | select('odd') | list
items | reject('odd') | list
items | select | list
[0, 1, '', 'a', none] | select | list
items | reject('equalto', 1) | list
items | select('nope') | list
items | map('nope') | list
(items | select('odd')) | length
(items | select('odd'))[0]
(items | map('string')) | tojson
d | dictsort
d | dictsort(true)
d | dictsort(reverse=true)
{'a': 2, 'b': 1} | dictsort(by='value')
{'a': 2, 'b': 1} | dictsort(by='nope')
items | batch(2) | list
items | batch(2, 0) | list
items | slice(2) | list
items | list
s | list
d | list
n | list
undefined_name | default('x')
nil | default('x')
nil | default('x', true)
empty | d('x', boolean=true)
undefined_name | default
undefined_name | default(nil)
'42' | int
'4.7' | int
' 12 ' | int
'x' | int
'x' | int(5)
'ff' | int(base=16)
'0x1f' | int(0, 16)
'1_000' | int
nil | int
2.9 | int
-2.9 | int
true | int
undefined_name | int
items | int
'2.5' | float
'x' | float
'x' | float(1.5)
'1e3' | float
n | float
'inf' | float
neg | abs
-2.5 | abs
'a' | abs
2.5 | round
3.5 | round
2.675 | round(2)
2.1 | round(method='ceil')
2.9 | round(0, 'floor')
n | round
html | escape
html | e | upper
html | safe
(html | safe) + '<i>'
'<i>' + (html | safe)
(html | safe) ~ '<i>'
[html | safe]
lines | indent
lines | indent(2)
lines | indent(2, true)
lines | indent(2, first=true, blank=true)
lines | indent('> ')
n | indent
s | replace('l', 'L')
s | replace('l', 'L', 1)
n | replace(7, 8)
'a long sentence of words' | truncate(10)
'a long sentence of words' | truncate(10, true)
'short' | truncate(10)
s | wordcount
'ab' | center(6) ~ '|'
'a b/c?é' | urlencode
d | attr('b')
(s | attr('upper'))()
d | tojson
nested | tojson
{'é': '😀', 'q': "\"\\\n\t\x01\x7f</script>", 'f': 1.0, 'g': 1e22, 't': (1, 2)} | tojson
u | tojson(ensure_ascii=true)
deep | tojson(indent=2)
[] | tojson(indent=2)
[[], {}, [1]] | tojson(indent=1)
d | tojson(indent='--')
{'b': 1, 'a': {'d': 1, 'c': 2}} | tojson(sort_keys=true)
[1, {'a': 2}] | tojson(separators=(',', ':'))
{1: 2, none: 3, true: 4, 1.5: 5} | tojson
'a' | tojson
nil | tojson
undefined_name | tojson
range(3) | tojson
d.items() | tojson
'{"a": [1, 2.5, null, true, "x"]}' | from_json
('{"a": 1}' | from_json).a
'{' | from_json
n | from_json
raise_exception('boom')
dict(a=1, b=2)
dict([('a', 1), ('b', 2)])
dict({'a': 1}, b=2)
namespace(a=1)
namespace(a=1).a
namespace().a is defined
namespace({'a': 2}).a
n is defined
undefined_name is defined
undefined_name is undefined
undefined_name is not defined
nil is none
nil is defined
s is string
n is string
n is number
x is number
yes is number
yes is integer
n is integer
x is float
yes is boolean
yes is true
n is true
no is false
d is mapping
items is mapping
items is sequence
s is sequence
d is sequence
n is sequence
nil is sequence
items is iterable
s is iterable
n is iterable
d is iterable
range(2) is iterable
n is odd
n is even
n is divisibleby 7
n is divisibleby(2)
'a' is odd
n is eq 7
n is sameas 7
nil is sameas none
n is gt 3
n is ge(7)
n is lt 3
n is ne 3
1 is in items
'abc' is lower
'ABC' is upper
'Abc' is lower
namespace is callable
s is callable
s.upper is callable
'upper' is filter
'nope' is filter
'odd' is test
html | safe is escaped
n is nope
n | nope
n is defined and s is string
n is not string and not s is number
not n is string
n is string or s is string
3 is odd is defined
items | length > 2
items | length + 1
(items | length) * 2
1 + 2 * 3 - 4 / 2
(1 + 2) * 3
'a' ~ 1 + 2
1 ~ 2 * 3
2 * 3 ~ 4
-1 | abs
-items | length
s.split(',')[1].strip()
s.split(',') | map('trim') | list
[1, 2, 3][1]
{'a': {'b': 1}}['a'].b
'abc'[1]
'abc'.upper()[0]
(1, 2, 3)[1:]
[*items]
dict(**d)
s.replace(*['l', 'L'])
s | default(s=1)
s.upper(1)
s | upper(1)
s | replace('a')
s | trim(nope=1)
loop
loop.index
varargs
strftime_now('%Y-%m-%d')
strftime_now('%d %b %Y, %B %A %y %%')
strftime_now is defined
1 +
(1
[1, 2
{'a' 1}
s |
s.
s..x
1 2
s is
a b
'unclosed
1 = 2
not
if
@
s[1, 2]
items[]
none
None
True
none.x is defined
n if
{{ n }}
s | length is odd
[1, 2, 3,]
{'a': 1,}
f(1,)
(,)
1 if true else
""" .strip("\n").split("\n")


def cases():
    """(template, variables) of every case."""
    sources = ["{{ " + expression + " }}" for expression in EXPRESSIONS + EDGES]
    sources += TEMPLATES
    return [(source, DATA) for source in sources]
