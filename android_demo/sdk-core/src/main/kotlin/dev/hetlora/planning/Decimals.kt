package dev.hetlora.planning

import dev.hetlora.units.MIB
import java.math.BigDecimal
import java.math.MathContext
import java.math.RoundingMode

/** A number with so many digits after the point, of two equally near ones the even one, as Python writes it. */
internal fun decimals(number: Double, digits: Int): String =
    BigDecimal(number).setScale(digits, RoundingMode.HALF_EVEN).toPlainString()

internal fun mib(bytes: Long): String = decimals(bytes.toDouble() / MIB, 0)

/** A number with up to six digits that count, and no zeros after them. */
internal fun general(number: Double): String {
    val rounded = BigDecimal(number).round(MathContext(6, RoundingMode.HALF_EVEN))
    return if (rounded.signum() == 0) "0" else rounded.stripTrailingZeros().toPlainString()
}
