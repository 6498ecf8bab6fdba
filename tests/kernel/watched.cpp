// SPDX-License-Identifier: BSD-2-Clause
// A library in C++ whose functions tests watch.
#define WATCHED __attribute__((noinline, noclone, visibility("default")))

namespace shapes
{
struct Square {
	long side;
	WATCHED Square(long side);
	WATCHED long area() const;
	WATCHED void scale(long factor);
	WATCHED void scale(double factor);
};

Square::Square(long side) : side(side)
{
}

long Square::area() const
{
	return side * side;
}

void Square::scale(long factor)
{
	side *= factor;
}

void Square::scale(double factor)
{
	side = static_cast<long>(side * factor);
}
} // namespace shapes

extern "C" long area_of_scaled(long side)
{
	shapes::Square square(side);
	square.scale(2L);
	square.scale(0.5);
	return square.area();
}
