package dev.hetlora.training

import kotlin.math.sqrt

// As in torch.nn.utils.clip_grad_norm_.
private const val NORM_SLACK = 1e-6

/** Add FedProx's mu (w - w_begun) (arXiv 1812.06127) to the gradients, and return mu/2 ||w - w_begun||^2. */
fun addProximal(gradients: FloatArray, numbers: FloatArray, begun: FloatArray, proximal: Double): Double {
    val share = proximal.toFloat()
    var squares = 0.0
    for (place in gradients.indices) {
        val change = numbers[place] - begun[place]
        squares += change.toDouble() * change
        gradients[place] += change * share
    }
    return proximal / 2 * squares
}

/** Scale gradients down to this norm where theirs is larger, and return what it was. */
fun clipNorm(gradients: FloatArray, maxNorm: Double): Double {
    val norm = sqrt(gradients.fold(0.0) { squares, own -> squares + own.toDouble() * own })
    val share = maxNorm / (norm + NORM_SLACK)
    if (share < 1) {
        val factor = share.toFloat()
        for (place in gradients.indices) gradients[place] *= factor
    }
    return norm
}
