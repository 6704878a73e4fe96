"""Expressions at the edges: long integers, formats, markup, sorting, attributes
of numbers. Each stands between {{ and }}."""

EDGES = r"""
9223372036854775807 + 1
-9223372036854775807 - 2
9223372036854775807 * 9223372036854775807
2 ** 64
2 ** 200 - 2 ** 199
(2 ** 200) // (10 ** 20)
(2 ** 200) % (10 ** 20)
-(2 ** 200) // 7
-(2 ** 200) % 7
2 ** 100 / 3
(10 ** 400) / (10 ** 399)
10 ** 400 / 3
10 ** 400 * 1.0
(10 ** 30) / 0
7 // -(10 ** 30)
7 % -(10 ** 30)
2 ** 70 == 2.0 ** 70
2 ** 70 < 2.0 ** 70 + 1e10
2 ** 1024 > 1e308
{2 ** 70: 'a'}[2.0 ** 70]
123456789012345678901234567890
0xffffffffffffffffffff
-0b11111111111111111111111111111111111111111111111111111111111111111111
[10 ** 25] | tojson
10 ** 25 | string | length
(10 ** 5000) | string
(10 ** 4299) | string | length
'123456789012345678901234567890' | int + 1
'ffffffffffffffffffffff' | int(base=16)
'zz' | int(base=36)
'12' | int(base=37)
'12' | int(base=1)
1e30 | int
(10 ** 25) | float
(10 ** 25) | abs
-(10 ** 25) | abs
(10 ** 25 + 1) is odd
(10 ** 25) is divisibleby 5
[10 ** 25, 3, 2.5, -(10 ** 25)] | sort
[10 ** 25, 10 ** 26] | sum
10 ** 25 in [10 ** 25]
s[10 ** 25:]
s[: 10 ** 25]
s[-(10 ** 25):]
s[10 ** 25]
items[-9223372036854775807 - 1]
items[-9223372036854775807 - 1:9223372036854775807:9223372036854775807]
range(10 ** 25, 10 ** 25 + 3) | list
range(3, 0, -(10 ** 25)) | list
range(0, 9223372036854775807, 9223372036854775807) | list
range(10)[1:9:3]
range(10)[::-1]
range(10)[5:1]
range(5).start ~ range(1, 9, 2).step ~ range(7).stop
'ab'.ljust(-9223372036854775807 - 1) ~ '|'
'ab'.ljust(9223372036854775807)
'ab'.zfill(-9223372036854775807 - 1)
'-ab'.zfill(9223372036854775807)
'ab'.center(-9223372036854775807) ~ '|'
'a b c d e f g' | truncate(9223372036854775807)
'a b c d e f g' | truncate(5, true, '', 9223372036854775807)
'a b c d e f g' | truncate(3, true, '')
'a b c d e f g' | truncate(5, leeway=0)
'a b c d e f g' | truncate(5, leeway=-1)
'a b c d e f g' | truncate(2)
lines | indent(-5)
lines | indent(0)
'a\r\nb\n' | indent(2)
2.5 | round(9223372036854775807)
2.5 | round(-9223372036854775807 - 1)
1250 | round(-2)
1350 | round(-2)
-1250 | round(-2)
1250.0 | round(-2)
15.5 | round(none)
12345 | round(-20)
1e300 | round(2, 'ceil')
12.3456 | round(2, 'ceil')
-12.3456 | round(1, 'floor')
5 | round(-1, 'floor')
items | batch(9223372036854775807) | list
items | batch(-9223372036854775807 - 1) | list
items | batch(0) | list
items | slice(-1) | list
items | slice(-9223372036854775807 - 1) | list
'a\tb'.expandtabs(-9223372036854775807)
'a\tb\tcc\n\td'.expandtabs(4)
s.split('l', -9223372036854775807 - 1)
s.replace('l', 'L', 9223372036854775807)
s.find('o', -9223372036854775807 - 1, 9223372036854775807)
s.count('l', 10 ** 20)
(3).bit_length() ~ (10 ** 25).bit_length() ~ (7).bit_count()
(2.5).as_integer_ratio() ~ (2.0).is_integer()
n.real ~ n.imag ~ n.numerator ~ n.denominator ~ x.real ~ x.imag
'%c%c%c' % (97, 'b', 128512)
'%c' % 'ab'
'%c' % -1
'%5c|%-5c|' % ('a', 'b')
'%*d|%-*d|%.*f' % (5, 42, 5, 42, 2, 3.14159)
'%.3d|%+.5d|%#x|%#o|%#.5x' % (7, 7, 255, 8, 255)
'%5%|%%' % ()
'%(a)s %(b(c))s' % {'a': 1, 'b(c)': 2}
'%a|%r' % ('é', 'é')
'%d' % 3.99
'%d' % 1e20
'%d' % (10 ** 25)
'%x' % (2 ** 70)
'%i %u' % (5, 6)
'%ld %hd' % (5, 6)
'%s' % ()
'%s' % [1, 2]
'no' % [1, 2]
'no' % {'a': 1}
'no' % (1,)
'no' % 1
'%e|%E|%g|%G|%F' % (12345.678, 0.00001, 1e20, 1e-10, 1.5)
'%010.2f|%+010d|% d' % (3.14159, 42, 7)
'%s|%.2s|%10.3s|' % ('abc', 'abc', 'abcdef')
'{:c}{:c}'.format(97, 128512)
'{:010,}|{:,.2f}|{:_x}|{:08,d}'.format(1234567, 12345.678, 2 ** 40, 1234)
'{:>{w}}|{:{f}^{w}}'.format('a', 'b', w=6, f='*')
'{0.a} {0[b]} {1[0]}'.format({'a': 1, 'b': 2}, [3])
'{} {0}'.format(1)
'{!r:>8}|{!s}|{!a}'.format('é', 1, 'é')
'{:.3}|{:.3}|{:.1}|{:.10}'.format(123.0, 1234.5, 5.0, 0.1)
'{:e}|{:E}|{:g}|{:G}|{:%}|{:.1%}|{:n}'.format(1.5, 1.5, 1e10, 1e-10, 0.25, 0.256, 7)
'{:+}|{: }|{:-}|{:+.1f}'.format(1, 2, 3, -0.0)
'{:z.1f}'.format(-0.01)
'{:05}|{:<05}|{:^7}|{:=+7}'.format(42, 42, 42, 42)
'{:05}|{:>5}|{:.2}'.format('ab', 'cd', 'efgh')
'{:b}|{:#b}|{:o}|{:#X}'.format(5, 5, 8, 255)
'{:d}|{:5}|{}'.format(true, true, true)
'{:5}'.format(none)
'{:=5}'.format('a')
'{:,}'.format('a')
'{:.2}'.format(5)
'{a[b:c]}'.format(a={'b:c': 1})
'{a.b.c}'.format(a={'b': {'c': 5}})
'{a}'.format_map({'a': 1})
'{{{}}}'.format(1)
'{'.format()
'}'.format()
'{0'.format(1)
'{!x}'.format(1)
'%9999999999999999999d' % 1
'{:9999999999999999999}'.format(1)
'Straße ΑΣ İ'.casefold()
'aBc Ñé'.swapcase()
'Abc Def'.istitle() ~ 'ABC'.istitle() ~ ''.istitle()
'a1_'.isidentifier() ~ '1a'.isidentifier() ~ 'é'.isidentifier()
'²½5'.isdigit() ~ '²'.isdigit() ~ '½'.isnumeric() ~ '5'.isdecimal() ~ '²'.isdecimal()
'a\n'.isprintable() ~ 'é '.isprintable() ~ ''.isprintable() ~ 'é'.isascii() ~ ''.isascii()
'abc'.translate({97: 'X', 98: none})
'abc'.translate('abc'.maketrans('ab', 'xy', 'c'))
'x'.join([1])
'x'.ljust(5, 'ab')
s.strip(chars='H')
rows | groupby('age') | list
rows | groupby('age') | map(attribute='grouper') | list
rows | groupby('boss', default=false) | map(attribute=0) | list
['a', 'B', 'A', 'b'] | groupby(0) | map('first') | list
['a', 'B', 'A', 'b'] | groupby(0, case_sensitive=true) | map(attribute='list') | list
rows | groupby('nope')
(rows | groupby('age'))[0].list | length
rows | groupby('age') | first | length
rows | map(attribute='tags.0', default='none') | list
rows | map('attr', 'name') | list
rows | map | list
rows | map(nope='x') | list
d.keys() == d.keys()
{'a': 1}.keys() == {'a': 2}.keys()
{'a': 1}.items() == {'a': 1}.items()
{'a': 1}.values() == {'a': 1}.values()
dict.fromkeys(['a', 'b'], 1)
{}.fromkeys('ab')
dict.fromkeys(['a'])
namespace([('a', 1)]).a
namespace(_a=1)
cycler('a', 'b').next()
cycler()
cycler(1, 2).current ~ cycler(1, 2).pos ~ cycler(1, 2).items
joiner()() ~ 'x'
joiner is callable
html | forceescape
(html | safe) | forceescape
(html | e) | e
('<a>' | safe).upper()
('<a>' | safe).replace('a', '<')
('<a>' | safe).join(['<b>', '<c>' | safe])
('%s %s' | safe) % ('<', '<' | safe)
('{} {}' | safe).format('<', '<' | safe)
('<a b>' | safe).split()
('<a>' | safe) * 2
('<a>' | safe)[0]
('ab' | safe).ljust(4, '<')
('ab' | safe) | indent(2)
{'a': 1, 'b': none, 'c': '<"', 'd e': 1} | xmlattr
{'a': 1, 'b': '<"'} | xmlattr
{'a': 1} | xmlattr(false)
{} | xmlattr
{'a b': 1, 'c': 'é/'} | urlencode
[('a', 1), ('b', 'x y')] | urlencode
42 | urlencode
1 | filesizeformat ~ 0 | filesizeformat
[500, 1000, 1500, 123456, 1e9, 1e30] | map('filesizeformat') | list
[500, 1024, 1536, 123456, 1e9, 1e30] | map('filesizeformat', true) | list
'x' | filesizeformat
'one two three four five six' | wordwrap(10)
'one twothreefourfivesix' | wordwrap(10)
'one twothreefourfivesix' | wordwrap(10, false)
'well-known facts--quite so-called' | wordwrap(8)
'well-known facts--quite so-called' | wordwrap(8, break_on_hyphens=false)
'a  b   c\n\n  d' | wordwrap(3)
'one two' | wordwrap(3, true, '<br>')
'one two' | wordwrap(0)
'one two' | wordwrap(9223372036854775807)
"they're bill's 2nd-hand" | wordcount
d | pprint
{'b': 1, 'a': [1, 2]} | pprint
(rows + rows + rows) | pprint
{'k' * 30: 'v' * 100, 'n': {'x': ['y' * 40, 'z' * 40]}} | pprint
('word ' * 40) | pprint
['word ' * 40, 'x'] | pprint
(1,) | pprint
{1: 2, 'a': 3, none: 4} | pprint
[3, 1] | sort is sequence
items | sort | first
[[2, 'b'], [1, 'a'], [1, 'B']] | sort
['b', 1] | sort
[none, 1] | sort
[true, false] | sort
[0.1, 0.2, 0.3] | sum
['a'] | sum(start='')
[[1], [2]] | sum(start=[0])
[1, 1.0, true, 'a', 'A'] | unique | list
rows | unique(attribute='tags') | list
rows | max(attribute='name') ~ rows | min(attribute='name')
['b', 'A'] | min ~ ['b', 'A'] | min(case_sensitive=true)
'abc' | last ~ 'abc' | first
undefined_name | last
d | last
d | reverse | list
undefined_name | reverse | list
undefined_name | dictsort
'\x00' in 'a\x00b'
'a' * true
[1] * 10 ** 25
'' * 10 ** 25
nil | attr('x') is defined
[[1, 2], [3, 4]] | map('sum') | list
[1, 2, 3] | map('string') | map('int') | sum
items | select('>', 1) | list
items | select('in', [1, 2]) | list
items | reject('lt', 2) | list
['a', 'B'] | select('upper') | list
words | map('default', 'x') | join
words | map('center', 5) | list
[1, 2] | join(attribute='real')
'a,b' | list | join('|')
[['a', 1]] | map('first') | list
1 if undefined_name
(1 if undefined_name) is undefined
'%s' % ('%s' | safe)
loop.index is defined
""".strip("\n").split("\n")
