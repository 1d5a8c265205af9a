"""From a clip of an echocardiogram to masks, beats and ejection fraction."""
