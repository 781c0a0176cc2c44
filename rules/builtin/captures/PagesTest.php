<?php
// Healthy work for phpunit: many small tests that pass.

use PHPUnit\Framework\TestCase;

final class PagesTest extends TestCase
{
    public static function pages(): iterable
    {
        for ($i = 0; $i < 20000; $i++) {
            yield "page $i" => [$i];
        }
    }

    /** @dataProvider pages */
    public function testAPageIsMadeAndRead(int $id): void
    {
        $rows = array_map(fn (int $n): array => ['id' => $n, 'name' => md5("$id $n")], range(1, 100));
        $page = json_encode(['page' => $id, 'rows' => $rows]);
        $read = json_decode($page, true);
        usort($read['rows'], fn (array $a, array $b): int => $a['name'] <=> $b['name']);
        $this->assertCount(100, $read['rows']);
        $this->assertSame($id, $read['page']);
        $this->assertMatchesRegularExpression('/^[0-9a-f]{32}$/', $read['rows'][0]['name']);
    }

    /** @dataProvider pages */
    public function testItsStoreIsAsked(int $id): void
    {
        foreach (['title', 'text', 'author', 'date'] as $field) {
            $store = $this->createMock(ArrayAccess::class);
            $store->expects($this->once())->method('offsetGet')->with($field)->willReturn("$field of $id");
            $this->assertStringStartsWith($field, $store[$field]);
        }
    }
}
